#!lua flags=allow-oom
--#include clock run metrics job queue
-- chain_job: the step of this job is recorded; leave it and enqueue that of the next step, in one stroke (I4, I9).
-- A sleep is a job that is due later.
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by dispatch_events.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run  7 app  8 function  9 queue  10 job
--        11 step that must be recorded, or ''  12 to 14 how the job ends, as leave_job takes it
--        15 push|sleep  16 sleep for ms, or ''  17 sleep until ms, or ''  18 log lines  19.. the next job, as put_job takes it
-- reply  'queued' | 'scheduled' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, lease, exec, run, app, fn, queue, job, step = unpack(ARGV, 3, 11)
local mode, spec = ARGV[15], {unpack(ARGV, 19, 27)}
local reply = mode == 'sleep' and 'scheduled' or 'queued'
if not is_held(lease) then
  -- an earlier try of this very call may have done it, and only its reply was lost
  return redis.call('HGET', run_key(run), 'chained') == lease and reply or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
note_lines(run, worker, ARGV[18])
drop_lease(job, queue, worker, lease)
leave_job(job, queue, worker, exec, lease, unpack(ARGV, 12, 14))
know_queue(spec[4])
local due, detail = '', {job = spec[1], queue = spec[4], kind = spec[3]}
if mode == 'sleep' then
  due = ARGV[17] ~= '' and tonumber(ARGV[17]) or NOW + tonumber(ARGV[16])
  detail['until'] = due
  put_job(run, spec, NOW, waiting_fields(spec[8], spec[9]))
  schedule_job(spec[1], spec[4], due)
  note(run, 'sleeping', spec[2], 1, worker, detail)
  set_state(run, app, fn, 'running', 'sleeping')
else
  put_job(run, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
  redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
  note(run, 'queued', spec[2], 1, worker, detail)
  set_state(run, app, fn, 'running', 'queued')
end
redis.call('HSET', run_key(run), 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1,
  'chained', lease, 'due', due)
return reply
