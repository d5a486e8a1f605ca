#!lua flags=allow-oom
--#include clock run job
-- commit_step: write the memo of a step that was run to its end: the first write wins (I1), only the holder may (I2).
-- Its job has ended with that; the lease stays, to go on from there. A step that was over before Redis heard of it (in
-- place, and short) gets its job now, in the same stroke.
-- allow-oom: finished work is recorded also when Redis is full.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {R}:suspended, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run  7 app  8 function  9 queue  10 step  11 memo
--        12 bytes of all memos  13 history entry  14 log lines  15 how the job ends: finished|failed  16 its outcome for RQ
--        17 how long RQ keeps it, s  18 job of the run so far  19.. of `observe_step`: 19 to 22, empty for a sleep
--        further, if the step's job is new: 23 to 25 how the one so far ends, as leave_job takes it  26 how old it is, ms
--        27.. the new job, as put_job takes it
-- reply  'recorded' | 'suspended' (recorded, and RQ's workers are to take nothing more) | 'fenced'
local worker, lease, exec, run, app, fn, queue, step, memo = unpack(ARGV, 3, 11)
if not is_held(lease) then return 'fenced' end
if redis.call('HSETNX', P .. ':memo:' .. run, step, memo) == 0 then return 'recorded' end -- its reply was lost
local status, outcome, ttl, job = unpack(ARGV, 15, 18)
if ARGV[27] then
  local spec, before, now = {unpack(ARGV, 27, 35)}, NOW - ARGV[26], iso(NOW)
  leave_job(job, queue, worker, exec, lease, ARGV[23], ARGV[24], ARGV[25])
  job = spec[1]
  put_job(run, spec, before, 'status', status, 'started_at', iso(before), 'ended_at', now, 'last_heartbeat', now,
    'worker_name', worker, 'flow_lease', lease)
  list_end(job, queue, worker, exec, status, outcome, ttl)
  redis.call('HSET', run_key(run), 'bytes', ARGV[12], 'job', job, 'step', step, 'kind', spec[3], 'attempt', 1)
else
  end_job(job, queue, worker, exec, lease, status, outcome, ttl)
  redis.call('HSET', run_key(run), 'bytes', ARGV[12])
end
note_lines(run, worker, ARGV[14])
note_told(run, ARGV[13])
count(app, 'memo_bytes|' .. fn .. '||', #memo)
if ARGV[19] ~= '' then observe_step(app, {unpack(ARGV, 19, 22)}) end
return redis.call('EXISTS', R .. ':suspended') == 1 and 'suspended' or 'recorded'
