#!lua flags=allow-oom
--#include clock run metrics job queue
-- reap: leases that ran out belong to dead workers: their jobs go back to the front of their queues, the loss is counted.
-- For a worker that is known to have died, its leases need not run out first.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 at most  4 a worker that has died, or ''
-- reply  {job, dead worker, job, dead worker, …}
local reaped, dead = {}, ARGV[4]
local function candidates()
  if dead == '' then return redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', NOW, 'LIMIT', 0, ARGV[3]) end
  local its = {}
  for _, composite in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
    if redis.call('HGET', job_key(string.match(composite, '^[^:]+')), 'worker_name') == dead then its[#its + 1] = composite end
  end
  return its
end
for _, composite in ipairs(candidates()) do
  local job, exec = string.match(composite, '^([^:]+):(.+)$')
  local f = redis.call('HMGET', job_key(job), 'flow_run', 'origin', 'worker_name', 'flow_step', 'flow_attempt', 'flow_exec',
    'flow_kind')
  redis.call('ZREM', P .. ':leases', composite)
  if f[1] then
    local run, queue, worker = f[1], f[2], f[3] or ''
    leave_worker(job, queue, worker, exec)
    local r = redis.call('HMGET', run_key(run), 'status', 'job', 'app', 'function', 'state')
    if r[1] == 'running' and r[2] == job and f[6] == exec then
      redis.call('HINCRBY', job_key(job), 'flow_losses', 1)
      unschedule_job(job, queue)
      redis.call('ZREM', R .. ':failed:' .. queue, job) -- a stock RQ worker may have given it up as failed
      redis.call('LREM', R .. ':queue:' .. queue, 0, job)
      queue_job(job, queue, true)
      note(run, 'lost', f[4], f[5] or 1, worker, {job = job, queue = queue})
      count(r[3], 'recovered|lost_worker||')
      -- an attempt is lost if a body may have been running: that of a recorded step has ended, and a sleep has none
      if f[7] == 'run' and f[4] ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, f[4]) == 0 then
        local id = string.match(f[4], '^%d+:(.*)$') or f[4]
        count(r[3], 'attempts|' .. r[4] .. '|lost|' .. step_label(r[3], r[4], string.match(id, '^[^%[]+') or id))
      end
      set_state(run, r[3], r[4], r[5], 'queued')
      reaped[#reaped + 1] = job
      reaped[#reaped + 1] = worker
    end
  end
end
return reaped
