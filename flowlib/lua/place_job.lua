#!lua flags=allow-oom
--#include clock run job
-- place_job: as chain_job, in place: the next job is leased to the same worker at once: no queue, no replay, one round trip.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {R}:suspended, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step that must be recorded, or ''
--        11 how this job ends: finished|failed|canceled  12 its outcome for RQ  13 and for how long RQ keeps it, s
--        14 next execution id  15 lease ms  16 log lines  17 history entry  18.. the next job, as put_job takes it
-- reply  'placed' | 'suspended' (nothing was done: use chain_job) | 'fenced'
--        | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, app, fn, queue, step = unpack(ARGV, 3, 10)
local next_exec, spec = ARGV[14], {unpack(ARGV, 18, 26)}
if not is_leased(job, exec) then
  -- an earlier try of this very call may have done it, and only its reply was lost
  local ours = redis.call('HGET', run_key(run), 'chained') == lease(job, exec) and is_leased(spec[1], next_exec)
  return ours and 'placed' or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
if redis.call('EXISTS', R .. ':suspended') == 1 then return 'suspended' end
note_lines(run, worker, ARGV[16])
end_job(job, queue, worker, exec, ARGV[11], ARGV[12], ARGV[13])
put_job(run, spec, 'started', started_fields(worker, next_exec))
grant_lease(spec[1], next_exec, ARGV[15])
note_told(run, ARGV[17])
count(app, 'queue_wait|' .. queue .. '|0.05|')
redis.call('HSET', run_key(run), 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'attempt', 1,
  'chained', lease(job, exec), 'due', '')
return 'placed'
