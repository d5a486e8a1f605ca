#!lua flags=allow-oom
--#include clock run metrics job queue
-- fail_attempt: an attempt failed and there is another to come: the same job is due again later.
-- A step's attempts are counted on its job; an error between steps counts as a call of the function, on the last job.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step|function  11 attempt
--        12 delay ms  13 error (msgpack)  14 outcome retry|timeout  15 seconds  16 log lines  17 step
--        18 step that must be recorded, or ''  19.. the step's metrics, as observe_step takes them; none for an error between steps
--        (a stock RQ worker puts the job back itself: it is told to return an rq.Retry)
-- reply  'retrying' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, app, fn, queue, level = unpack(ARGV, 3, 10)
local attempt, delay, step = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[17]
local failed = redis.call('HGET', job_key(job), 'flow_failed')
if failed == exec then return 'retrying' end
if not is_leased(job, exec) then return 'fenced' end
if ARGV[18] ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, ARGV[18]) == 0 then return 'unrecorded' end
leave_worker(job, queue, worker, exec)
redis.call('HSET', job_key(job), 'flow_failed', exec, level == 'step' and 'flow_attempt' or 'flow_calls', attempt + 1)
note_lines(run, worker, ARGV[16])
note(run, 'failed', step, attempt, worker,
  {error = cmsgpack.unpack(ARGV[13]), level = level, outcome = ARGV[14], seconds = tonumber(ARGV[15]), retry_at = NOW + delay})
redis.call('HSET', run_key(run), 'due', NOW + delay, 'attempt', level == 'step' and attempt + 1 or 1)
if ARGV[19] then observe_step(app, {unpack(ARGV, 19, 22)}) end
if by_rq(exec) then
  redis.call('HSET', job_key(job), 'flow_queued', NOW + delay)
  set_state(run, app, fn, 'running', 'retrying')
elseif delay > 0 then
  schedule_job(job, queue, NOW + delay)
  set_state(run, app, fn, 'running', 'retrying')
else
  queue_job(job, queue, false)
  note(run, 'queued', step, attempt + 1, worker, {job = job, queue = queue})
  set_state(run, app, fn, 'running', 'queued')
end
return 'retrying'
