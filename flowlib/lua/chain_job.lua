#!lua flags=allow-oom
--#include clock run metrics job queue
-- chain_job: the step of this job is recorded; end the job and enqueue that of the next step, in one stroke (I4, I9).
-- A sleep is a job that is due later.
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by start_run.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step that must be recorded, or ''
--        11 how this job ends: finished|failed|canceled  12 its outcome for RQ  13 and for how long RQ keeps it, s
--        14 push|sleep  15 sleep for ms, or ''  16 sleep until ms, or ''  17 log lines
--        18.. the next job, as put_job takes it
-- reply  'queued' | 'scheduled' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, app, fn, queue, step = unpack(ARGV, 3, 10)
local mode, spec = ARGV[14], {unpack(ARGV, 18, 26)}
local reply = mode == 'sleep' and 'scheduled' or 'queued'
if not is_leased(job, exec) then
  -- an earlier try of this very call may have done it, and only its reply was lost
  return redis.call('HGET', run_key(run), 'chained') == lease(job, exec) and reply or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
note_lines(run, worker, ARGV[17])
end_job(job, queue, worker, exec, ARGV[11], ARGV[12], ARGV[13])
know_queue(spec[4])
local due, detail = '', {job = spec[1], queue = spec[4], kind = spec[3]}
if mode == 'sleep' then
  due = ARGV[16] ~= '' and tonumber(ARGV[16]) or NOW + tonumber(ARGV[15])
  detail['until'] = due
  put_job(run, spec, 'scheduled')
  schedule_job(spec[1], spec[4], due)
  note(run, 'sleeping', spec[2], 1, worker, detail)
  set_state(run, app, fn, 'running', 'sleeping')
else
  put_job(run, spec, 'queued')
  redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
  note(run, 'queued', spec[2], 1, worker, detail)
  set_state(run, app, fn, 'running', 'queued')
end
redis.call('HSET', run_key(run), 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1,
  'chained', lease(job, exec), 'due', due)
return reply
