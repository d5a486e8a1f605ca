#!lua flags=allow-oom
--#include clock run metrics job queue
-- release_job: a living worker hands a job back that it will not finish: no attempt and no loss is counted.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue
--        10 delay ms (0: to the front of its queue)  11 reason  12 log lines
-- reply  'released' | 'fenced'
local worker, exec, job, run, app, fn, queue = unpack(ARGV, 3, 9)
if not is_leased(job, exec) then return 'fenced' end
leave_worker(job, queue, worker, exec)
note_lines(run, worker, ARGV[12])
local r = redis.call('HMGET', run_key(run), 'step', 'attempt')
note(run, 'released', r[1], r[2], worker, {job = job, queue = queue, reason = ARGV[11]})
local delay = tonumber(ARGV[10])
if delay > 0 then schedule_job(job, queue, NOW + delay) else queue_job(job, queue, true) end
set_state(run, app, fn, 'running', 'queued')
return 'released'
