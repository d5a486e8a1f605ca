#!lua flags=allow-oom
--#include clock run job
-- place_job: the next job of a run is on the worker that had the one before, under the same lease: no queue, no replay.
-- For steps that take a moment; commit_step makes the job of those that are over sooner.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job of the run so far
--        11 step that must be recorded, or ''  12 to 14 how that job ends, as leave_job takes it  15 how old the new one is, ms
--        16 workers lost with it so far  17 history entry  18.. the new job, as put_job takes it
-- reply  'placed' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, lease, exec, named, _, _, queue, before, step = unpack(ARGV, 3, 11)
local run, place = place_of(named)
local spec = {unpack(ARGV, 18, 26)}
if not is_held(lease) then return 'fenced' end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
if redis.call('HGET', place, 'job') == spec[1] then return 'placed' end -- its reply was lost
if redis.call('HEXISTS', P .. ':memo:' .. run, spec[2]) == 1 then return 'placed' end
leave_job(before, queue, worker, exec, lease, unpack(ARGV, 12, 14))
local began = NOW - ARGV[15]
put_job(named, spec, began, 'flow_losses', ARGV[16], started_fields(worker, exec, lease))
redis.call('HSET', job_key(spec[1]), 'started_at', iso(began), waiting_fields(spec[8], spec[9]))
note_told(run, ARGV[17], began)
redis.call('HSET', place, 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'attempt', 1, 'due', '')
return 'placed'
