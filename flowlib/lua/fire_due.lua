#!lua flags=allow-oom
--#include clock run metrics job queue wait cancel_on tell children branches finish undo cancel
-- fire_due: what is due: jobs (sleeps, waits, back-offs) go to the front of their queues, the earliest first; a run that has
-- not begun, or not ended, in time is cancelled.
-- KEYS   1 {P}:timers   and {P}:tick, those of the libraries
-- ARGV   1 P  2 R  3 at most
-- reply  {how many were fired, µs until the next is due or -1}
local timers = P .. ':timers'

local function wake(job)
  local f = redis.call('HMGET', job_key(job), 'flow_run', 'origin', 'status', 'flow_step', 'flow_attempt', 'flow_failed',
    'flow_lease', 'flow_branch')
  if not f[1] then return end
  redis.call('ZREM', R .. ':scheduled:' .. f[2], job)
  local place = place_key(f[1], f[8])
  local r, p = redis.call('HMGET', run_key(f[1]), 'status', 'app', 'function'), redis.call('HMGET', place, 'job', 'state')
  if f[3] == 'scheduled' and r[1] == 'running' and p[1] == job then
    queue_job(job, f[2], true)
    note(f[1], 'queued', f[4], f[5] or 1, '', {job = job, queue = f[2], woken = true})
    set_state(place, r[2], r[3], p[2], 'queued')
  elseif f[3] == 'started' and f[6] and f[7] and exec_of(f[7]) == f[6] then
    redis.call('ZADD', timers, NOW + 100, job) -- a stock RQ worker is about to say that it is scheduled
  end
end

local function give_up(run, bound)
  local r = redis.call('HMGET', run_key(run), 'status', 'created', bound == 'start' and 'starts_by' or 'ends_by',
    'began')
  if r[1] ~= 'running' or not r[3] then return end
  local what = bound == 'start' and 'start timeout: it had not begun' or 'run timeout: it had not ended'
  stop_run(run, string.format('%s after %.6g s', what, (r[3] - (r[4] or r[2])) / 1000))
end

local due = redis.call('ZRANGEBYSCORE', timers, '-inf', NOW, 'LIMIT', 0, ARGV[3])
for i = #due, 1, -1 do
  local run, bound = string.match(due[i], '^(.*)!(%a+)$')
  redis.call('ZREM', timers, due[i])
  if run then give_up(run, bound) else wake(due[i]) end
end
redis.call('SET', P .. ':tick', NOW)
local head = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
return {#due, head[2] and math.max(0, math.ceil((tonumber(head[2]) - NOW) * 1000)) or -1}
