#!lua flags=allow-oom
--#include clock run job
-- chain_job: the step of this job is recorded; end the job and create that of the next step, in one stroke (I4, I9).
-- In place, the next job is leased to the same worker at once: no queue, no replay. A sleep is a job that is due later.
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by start_run.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {R}:suspended, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step that must be recorded, or ''
--        11 how this job ends: finished|failed|canceled  12 its outcome for RQ  13 and for how long RQ keeps it, s
--        14 place|push|sleep  15 next execution id  16 lease ms  17 sleep for ms, or ''  18 sleep until ms, or ''
--        19 log lines  20 history entry, when placed  21.. the next job, as put_job takes it
-- reply  'placed' | 'queued' | 'scheduled' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, app, fn, queue, step = unpack(ARGV, 3, 10)
local mode, next_exec = ARGV[14], ARGV[15]
local spec = {unpack(ARGV, 21, 29)}
if not is_leased(job, exec) then
  if redis.call('HGET', run_key(run), 'chained') ~= lease(job, exec) then return 'fenced' end
  -- an earlier try of this very call did it, and only its reply was lost
  if mode == 'sleep' then return 'scheduled' end
  return is_leased(spec[1], next_exec) and 'placed' or 'queued'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
if mode == 'place' and redis.call('EXISTS', R .. ':suspended') == 1 then mode = 'push' end
note_lines(run, worker, ARGV[19])
end_job(job, queue, worker, exec, ARGV[11], ARGV[12], ARGV[13])
local due, reply = '', 'queued'
if mode == 'place' then
  put_job(run, spec, 'started', started_fields(worker, next_exec))
  grant_lease(spec[1], next_exec, tonumber(ARGV[16]))
  note_told(run, ARGV[20])
  count(app, 'queue_wait|' .. queue .. '|0.05|')
  reply = 'placed'
else
  know_queue(spec[4])
  local detail = {job = spec[1], queue = spec[4], kind = spec[3]}
  if mode == 'sleep' then
    due = ARGV[18] ~= '' and tonumber(ARGV[18]) or NOW + tonumber(ARGV[17])
    detail['until'] = due
    put_job(run, spec, 'scheduled')
    schedule_job(spec[1], spec[4], due)
    note(run, 'sleeping', spec[2], 1, worker, detail)
    set_state(run, app, fn, 'running', 'sleeping')
    due, reply = ms(due), 'scheduled'
  else
    put_job(run, spec, 'queued')
    redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
    note(run, 'queued', spec[2], 1, worker, detail)
    set_state(run, app, fn, 'running', 'queued')
  end
end
redis.call('HSET', run_key(run), 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1,
  'chained', lease(job, exec), 'due', due)
return reply
