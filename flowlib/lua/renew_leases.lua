#!lua flags=allow-oom
--#include clock run job ordinary
-- renew_leases: a worker's heartbeat: extend the leases that it knows of (an orphaned claim is not renewed, so it is reaped).
-- A supervisor renews those of all its workers, and keeps these registered with RQ while they cannot speak for themselves.
-- KEYS   1 {P}:leases   and {P}:run:{run} {R}:worker:{w} {R}:worker:{w}:executions, those of the libraries
-- ARGV   1 P  2 R  3 worker, '' for a supervisor  4 lease ms  5 worker key's lifetime s  6, 7 jobs that it ended well, and failed, since last
--        8 seconds that they took  9.. leases, of ordinary RQ jobs among them
-- reply  {1 or 0: is the worker registered with RQ, a lease that was lost, …}
local worker, until_ms = ARGV[3], NOW + tonumber(ARGV[4])
local key = R .. ':worker:' .. worker
local lost, now = {redis.call('HEXISTS', key, 'birth')}, iso(NOW)
for i = 9, #ARGV do
  local lease = ARGV[i]
  if string.sub(lease, 1, 3) == 'rq!' then
    if not renew_ordinary(lease, until_ms) then lost[#lost + 1] = lease end
  elseif is_held(lease) then
    redis.call('ZADD', P .. ':leases', until_ms, lease)
    local job = redis.call('HGET', run_key(run_of(lease)), 'job') or ''
    if redis.call('HGET', job_key(job), 'status') == 'started' then
      redis.call('HSET', job_key(job), 'last_heartbeat', now)
      local execution = R .. ':execution:' .. job .. ':' .. exec_of(lease)
      if redis.call('EXISTS', execution) == 1 then redis.call('HSET', execution, 'last_heartbeat', NOW / 1000) end
    end
    if worker == '' then
      redis.call('EXPIRE', R .. ':worker:' .. (redis.call('HGET', job_key(job), 'worker_name') or ''), ARGV[5])
    end
  else
    lost[#lost + 1] = lease
  end
end
if lost[1] == 0 then return lost end -- RQ refuses a worker whose key exists
redis.call('HSET', key, 'last_heartbeat', now)
if ARGV[6] ~= '0' then redis.call('HINCRBY', key, 'successful_job_count', ARGV[6]) end
if ARGV[7] ~= '0' then redis.call('HINCRBY', key, 'failed_job_count', ARGV[7]) end
if tonumber(ARGV[8]) > 0 then redis.call('HINCRBYFLOAT', key, 'total_working_time', ARGV[8]) end
redis.call('EXPIRE', key, ARGV[5])
redis.call('EXPIRE', key .. ':executions', ARGV[5])
return lost
