#!lua flags=allow-oom
--#include clock run metrics job queue
-- release_job: a living worker hands a job back that it will not finish: no attempt and no loss is counted.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
--        11 delay ms (0: to the front of its queue)  12 reason  13 log lines
-- reply  'released' | 'fenced'
local worker, lease, exec, named, app, fn, queue, job = unpack(ARGV, 3, 10)
local run, place = place_of(named)
if not is_held(lease) then return 'fenced' end
drop_lease(job, queue, worker, lease)
forget_end(job, queue)
note_lines(run, worker, ARGV[13])
local r = redis.call('HMGET', place, 'step', 'attempt')
note(run, 'released', r[1], r[2], worker, {job = job, queue = queue, reason = ARGV[12]})
local delay = tonumber(ARGV[11])
if delay > 0 then schedule_job(job, queue, NOW + delay) else queue_job(job, queue, true) end
set_state(place, app, fn, 'running', 'queued')
return 'released'
