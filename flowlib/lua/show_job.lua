#!lua flags=allow-oom
--#include clock job
-- show_job: a job has been on its worker for a moment: list it where RQ's tools look for what is being executed.
-- KEYS   1 {P}:leases   and {R}:wip:{q} {R}:execution:{job}:{exec} {R}:executions:{job} {R}:worker:{w}:executions
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 job  7 queue
-- reply  1 | 0 it has left the worker already, or ended on it
local worker, lease, exec, job, queue = unpack(ARGV, 3, 7)
if by_rq(exec) or not is_held(lease) then return 0 end
local f = redis.call('HMGET', job_key(job), 'status', 'flow_lease')
if f[1] ~= 'started' or f[2] ~= lease then return 0 end
local composite, at = job .. ':' .. exec, NOW / 1000
local a_day_ahead = math.floor(NOW / 1000) + DAY
redis.call('HSET', job_key(job), 'flow_shown', lease)
redis.call('ZADD', R .. ':wip:' .. queue, a_day_ahead, composite)
redis.call('HSET', R .. ':execution:' .. composite, 'id', exec, 'job_id', job, 'created_at', at, 'last_heartbeat', at,
  'worker_name', worker)
redis.call('EXPIRE', R .. ':execution:' .. composite, DAY)
redis.call('ZADD', R .. ':executions:' .. job, a_day_ahead, exec)
redis.call('EXPIRE', R .. ':executions:' .. job, DAY)
redis.call('SADD', R .. ':worker:' .. worker .. ':executions', composite)
return 1
