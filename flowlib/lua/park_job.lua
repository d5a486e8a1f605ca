#!lua flags=allow-oom
--#include clock run metrics job queue
-- park_job: a worker has claimed a job whose function it does not know: handed back as it was, for a while that doubles each
-- time, and listed, so that a worker that knows the function need not wait for that (resume_parked).
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
-- reply  'parked' | 'fenced'
local FIRST, LONGEST = 250, 3600000 -- ms
local worker, lease, _, named, app, fn, queue, job = unpack(ARGV, 3, 10)
local run, place = place_of(named)
if not is_held(lease) then return 'fenced' end
drop_lease(job, queue, worker, lease)
forget_end(job, queue)
local times = redis.call('HINCRBY', job_key(job), 'flow_parked', 1)
local due = NOW + math.min(LONGEST, FIRST * 2 ^ math.min(times - 1, 30))
local r = redis.call('HMGET', place, 'step', 'attempt')
redis.call('HSET', place, 'due', due)
note(run, 'parked', r[1], r[2], worker, {job = job, queue = queue, retry_at = due})
schedule_job(job, queue, due)
set_state(place, app, fn, 'running', 'parked')
return 'parked'
