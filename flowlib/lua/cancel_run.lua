#!lua flags=allow-oom
--#include clock run metrics job queue wait finish
-- cancel_run: end an unfinished run from outside: its job leaves queue, timers and worker; a late report is fenced (I2).
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 run  4 reason  5 token of this request: sent again, it gets the same answer
-- reply  {'unknown'} | {'ended', status} | {'cancelled', job, worker that runs it or ''}
local run = ARGV[3]
local r = redis.call('HMGET', run_key(run), 'status', 'job', 'queue', 'cancelled_by', 'cancelled_at', 'app', 'kind')
if not r[1] then return {'unknown'} end
if r[4] == ARGV[5] then return {'cancelled', r[2], r[5]} end
if r[1] ~= 'running' then return {'ended', r[1]} end
local job, queue = r[2], r[3]
local f = redis.call('HMGET', job_key(job), 'flow_lease', 'worker_name', 'status', 'flow_run')
local worker = ''
unschedule_job(job, queue)
if r[7] == 'wait' then forget_wait(r[6], job) end
redis.call('LREM', R .. ':queue:' .. queue, 0, job)
if is_held(f[1]) then
  worker = f[2] or ''
  drop_lease(job, queue, worker, f[1])
  if not RESULT_TYPE[f[3]] then end_job(job, queue, worker, exec_of(f[1]), f[1], 'canceled', '', 60) end
elseif f[3] then
  redis.call('HSET', job_key(job), 'status', 'canceled', 'ended_at', iso(NOW))
end
if not f[4] then -- somebody has deleted the job; a worker may be at it all the same
  for _, lease in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
    if run_of(lease) == run then redis.call('ZREM', P .. ':leases', lease) end
  end
end
redis.call('EXPIRE', job_key(job), 60)
end_run(run, 'cancelled', worker, {reason = ARGV[4]}, {'reason', ARGV[4], 'cancelled_by', ARGV[5], 'cancelled_at', worker})
return {'cancelled', job, worker}
