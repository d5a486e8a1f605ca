#!lua flags=allow-oom
--#include clock run job
-- chain_job: the step of this job is recorded; end the job and create that of the next step, in one stroke (I4, I9).
-- In place, the next job is leased to the same worker at once: no queue, no replay. A sleep is a job that is due later.
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by start_run.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {R}:suspended, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step that must be recorded, or ''
--        11 how this job ends: finished|failed|canceled  12 its outcome for RQ  13 place|push|sleep  14 next execution id
--        15 lease ms  16 sleep for ms, or ''  17 sleep until ms, or ''  18 log lines  19.. the next job, as put_job takes it
-- reply  'placed' | 'queued' | 'scheduled' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, app, fn, queue, step = unpack(ARGV, 3, 10)
local mode, next_exec = ARGV[13], ARGV[14]
local spec = {unpack(ARGV, 19, 27)}
if not is_leased(job, exec) then
  if redis.call('HGET', run_key(run), 'chained') ~= lease(job, exec) then return 'fenced' end
  -- an earlier try of this very call did it, and only its reply was lost
  if mode == 'sleep' then return 'scheduled' end
  return is_leased(spec[1], next_exec) and 'placed' or 'queued'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
note_lines(run, worker, ARGV[18])
end_job(job, queue, worker, exec, ARGV[11], ARGV[12])
if mode == 'place' and redis.call('EXISTS', R .. ':suspended') == 1 then mode = 'push' end
local due, reply, state = '', 'queued', 'queued'
if mode == 'sleep' then
  due = ARGV[17] ~= '' and tonumber(ARGV[17]) or NOW + tonumber(ARGV[16])
  put_job(run, spec, 'scheduled')
  schedule_job(spec[1], spec[4], due)
  note(run, 'sleeping', spec[2], 1, worker, {job = spec[1], queue = spec[4], kind = spec[3], ['until'] = due})
  reply, state = 'scheduled', 'sleeping'
elseif mode == 'place' then
  put_job(run, spec, 'started')
  start_job(spec[1], spec[4], worker, next_exec, tonumber(ARGV[15]))
  note(run, 'claimed', spec[2], 1, worker, {job = spec[1], queue = spec[4], kind = spec[3], waited = 0, in_place = true})
  observe(app, 'queue_wait', spec[4], '', WAIT_EDGES, 0)
  reply, state = 'placed', 'running'
else
  put_job(run, spec, 'queued', false)
  note(run, 'queued', spec[2], 1, worker, {job = spec[1], queue = spec[4], kind = spec[3]})
end
redis.call('HSET', run_key(run), 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1,
  'chained', lease(job, exec), 'due', due ~= '' and ms(due) or '')
if state ~= 'running' then set_state(run, app, fn, 'running', state) end
return reply
