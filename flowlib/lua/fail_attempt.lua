#!lua flags=allow-oom
--#include clock run metrics job queue
-- fail_attempt: an attempt failed and there is another to come: the same job is due again later.
-- A step's attempts are counted on its job; an error between steps counts as a call of the function, on the last job.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job  11 step|function
--        12 attempt  13 delay ms  14 error (msgpack)  15 outcome retry|timeout  16 seconds  17 log lines  18 step
--        19 step that must be recorded, or ''  20.. the step's metrics, as observe_step takes them; none for an error between steps
--        (a stock RQ worker keeps RQ's books itself: it is told to return an rq.Retry; the timer is ours all the same)
-- reply  'retrying' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, lease, exec, named, app, fn, queue, job, level = unpack(ARGV, 3, 11)
local run, place = place_of(named)
local attempt, delay, step = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[18]
if redis.call('HGET', job_key(job), 'flow_failed') == exec then return 'retrying' end
if not is_held(lease) then return 'fenced' end
if ARGV[19] ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, ARGV[19]) == 0 then return 'unrecorded' end
drop_lease(job, queue, worker, lease)
forget_end(job, queue)
redis.call('HSET', job_key(job), 'flow_failed', exec, level == 'step' and 'flow_attempt' or 'flow_calls', attempt + 1)
note_lines(run, worker, ARGV[17])
note(run, 'failed', step, attempt, worker,
  {error = cmsgpack.unpack(ARGV[14]), level = level, outcome = ARGV[15], seconds = tonumber(ARGV[16]), retry_at = NOW + delay})
redis.call('HSET', place, 'due', NOW + delay, 'attempt', level == 'step' and attempt + 1 or 1)
if ARGV[20] then observe_step(app, {unpack(ARGV, 20, 22)}) end
if by_rq(exec) then
  redis.call('HSET', job_key(job), 'flow_queued', NOW + delay)
  if delay > 0 then set_timer(job, NOW + delay) end
  set_state(place, app, fn, 'running', 'retrying')
elseif delay > 0 then
  schedule_job(job, queue, NOW + delay)
  set_state(place, app, fn, 'running', 'retrying')
else
  queue_job(job, queue, false)
  note(run, 'queued', step, attempt + 1, worker, {job = job, queue = queue})
  set_state(place, app, fn, 'running', 'queued')
end
return 'retrying'
