#!lua flags=allow-oom
--#include clock run metrics job queue wait cancel_on tell children branches finish undo cancel
-- finish_run: the function returned or failed for good: leave its last job and end the run, in one stroke (I6); one that has
-- failed, and has something to undo, ends once that is done.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
--        11 step that must be recorded, or ''  12 to 14 how the job ends, as leave_job takes it
--        15 completed|failed|cancelled  16 result  17 error  18 log lines
--        19 of a run that has gone on side by side and completes: the steps that its function leaves open, packed; else ''
--        20 0: what it has done is not undone, for nobody could
-- reply  'finished' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
--        | 'vanished STEP' (it is open, and the function does not ask for it any more: nothing was changed)
local worker, lease, exec, named, app, _, queue, job, step = unpack(ARGV, 3, 11)
local run, place = place_of(named)
if not is_held(lease) then
  return redis.call('HGET', run_key(run), 'chained') == lease and 'finished' or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end

local function vanished()
  local left = {}
  for _, each in ipairs(cmsgpack.unpack(ARGV[19])) do left[each] = true end
  for _, each in ipairs(redis.call('HKEYS', open_key(run))) do
    if not left[each] and redis.call('HEXISTS', P .. ':memo:' .. run, each) == 0 then return each end
  end
end

local lost = ARGV[19] ~= '' and vanished()
if lost then return 'vanished ' .. lost end
note_lines(run, worker, ARGV[18])
drop_lease(job, queue, worker, lease)
end_others(run, place, app)
leave_job(job, queue, worker, exec, lease, unpack(ARGV, 12, 14))
if place ~= run_key(run) then -- the run has ended here
  local its = redis.call('HMGET', job_key(job), 'flow_step', 'flow_kind')
  redis.call('HSET', run_key(run), 'job', job, 'queue', queue, 'step', its[1] or '', 'kind', its[2] or '')
end
local detail = {bytes = #ARGV[16]}
if ARGV[15] == 'failed' and ARGV[20] == '1' and can_undo(run) and not is_undoing(run) then
  undo_first(run, 'failed', ARGV[17], nil, {'chained', lease})
  return 'finished'
end
if ARGV[15] == 'cancelled' then detail.reason = redis.call('HGET', run_key(run), 'reason') end -- all is undone
if ARGV[17] ~= '' then detail.error = cmsgpack.unpack(ARGV[17]) end
end_run(run, ARGV[15], worker, detail, {'result', ARGV[16], 'error', ARGV[17], 'chained', lease})
return 'finished'
