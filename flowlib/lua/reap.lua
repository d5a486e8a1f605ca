#!lua flags=allow-oom
--#include clock run metrics job queue
-- reap: leases that ran out belong to dead workers: their jobs go back to the front of their queues, the loss is counted.
-- For a worker that is known to have died, its leases need not run out first. If it was ended on purpose, its jobs are
-- handed back and no loss is counted; that of an overdue lease fails by timeout as soon as it is claimed.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 at most  4 a worker that has died, or ''  5 1 if it was ended on purpose
--        6.. its overdue leases
-- reply  {job, dead worker, job, dead worker, …}
local reaped, dead, on_purpose, overdue = {}, ARGV[4], ARGV[5] == '1', {}
for i = 6, #ARGV do overdue[ARGV[i]] = true end

-- The place of a run, and its job, that goes on under this lease
local function place_under(lease)
  local run = run_of(lease)
  local place = run_key(run)
  local job = redis.call('HGET', place, 'job') or ''
  if redis.call('HGET', job_key(job), 'flow_lease') == lease then return place, job end
  for _, branch in pairs(by_name(redis.call('HGETALL', open_key(run)))) do
    local key = branch_key(run, branch)
    local its = redis.call('HGET', key, 'job')
    if its and redis.call('HGET', job_key(its), 'flow_lease') == lease then return key, its end
  end
  return place, job
end

local function candidates()
  if dead == '' then return redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', NOW, 'LIMIT', 0, ARGV[3]) end
  local its = {}
  for _, lease in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
    local _, job = place_under(lease)
    if redis.call('HGET', job_key(job), 'worker_name') == dead then its[#its + 1] = lease end
  end
  return its
end
for _, lease in ipairs(candidates()) do
  local run, place, job = run_of(lease), place_under(lease)
  local f = redis.call('HMGET', job_key(job), 'origin', 'worker_name', 'flow_step', 'flow_attempt', 'flow_lease', 'flow_kind')
  redis.call('ZREM', P .. ':leases', lease)
  if f[5] == lease then
    local queue, worker = f[1], f[2] or ''
    hide_job(job, queue, worker, lease)
    local r = redis.call('HMGET', run_key(run), 'status', 'app', 'function')
    if r[1] == 'running' then
      unschedule_job(job, queue)
      forget_end(job, queue) -- it ended before its run went on; or a stock RQ worker has given it up as failed
      redis.call('LREM', R .. ':queue:' .. queue, 0, job)
      queue_job(job, queue, true)
      if on_purpose then
        if overdue[lease] then redis.call('HSET', job_key(job), 'flow_overdue', f[4] or 1) end
        local why = overdue[lease] and 'it ran over its time, and its worker was killed' or 'its worker was ended'
        note(run, 'released', f[3], f[4] or 1, worker, {job = job, queue = queue, reason = why})
      else
        redis.call('HINCRBY', job_key(job), 'flow_losses', 1)
        note(run, 'lost', f[3], f[4] or 1, worker, {job = job, queue = queue})
        count(r[2], 'recovered|lost_worker||')
        -- an attempt is lost if a body may have been running: that of a recorded step has ended, sleeps and waits have none
        if f[6] ~= 'sleep' and not WAITS[f[6]] and f[3] ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, f[3]) == 0 then
          local id = string.match(f[3], '^%d+:(.*)$') or f[3]
          count(r[2], 'attempts|' .. r[3] .. '|lost|' .. step_label(r[2], r[3], string.match(id, '^[^%[]+') or id))
        end
      end
      set_state(place, r[2], r[3], redis.call('HGET', place, 'state'), 'queued')
      reaped[#reaped + 1] = job
      reaped[#reaped + 1] = worker
    end
  end
end
return reaped
