#!lua flags=allow-oom
--#include clock run metrics job queue wait branches
-- fork_run: the function has asked for several steps side by side, and is held up: those that are neither recorded nor open
-- get jobs of their own, each in a branch. One of them may stay with this worker, else its place is left, in the same stroke
-- (I4): whoever records the last of what the function waits for goes on behind it, and nobody else (I3).
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by dispatch_events.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
--        11 step that must be recorded, or ''  12 to 14 how the job ends, as leave_job takes it  15 1: one may stay
--        16 log lines  17 all steps that the function waits for, packed: {step, job as put_job takes it, sleep for ms, sleep
--        until ms} each, nil for what there is not; the one that holds it up is the first. Those that are open need no job
-- reply  {'behind', step, memo, step, memo, …} (these have been recorded: go on with them) | {'left'} | {'fenced'}
--        | {'stays', place in 17 from 0, 1 if nothing else of the run is open} | {'unrecorded'} (the memo did not arrive)
--        | {'lacking', place in 17 from 0, …} (these are not open: say what their jobs are)
local worker, lease, exec, named, app, fn, queue, job, step = unpack(ARGV, 3, 11)
local run, place, branch = place_of(named)
local wants, open, mine = cmsgpack.unpack(ARGV[17]), open_key(run), branch == '' and '0' or branch
if not is_held(lease) then
  return {redis.call('HGET', run_key(run), 'left') == lease and 'left' or 'fenced'}
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return {'unrecorded'} end
local steps, at = {}, redis.call('HMGET', place, 'job', 'entry', 'step')
for i, want in ipairs(wants) do
  steps[i] = want[1]
  -- an earlier try of this very call may have done it, and only its reply was lost: others, if there were any, may have done
  -- all of theirs since, and we have heard of none of it
  if want[1] == at[3] and at[1] ~= job then return {'stays', i - 1, redis.call('HLEN', open) == 0 and 1 or 0} end
end

-- Is another worker between two steps of this run? Then it will come here, and find all that is recorded by then.
local function another_comes()
  for _, its in ipairs(redis.call('HKEYS', open)) do
    if its ~= at[2] and redis.call('HEXISTS', P .. ':memo:' .. run, its) == 1 then return true end
  end
  return false
end

local known, fresh, lacking = {'behind'}, {}, {'lacking'}
local memos, taken = redis.call('HMGET', P .. ':memo:' .. run, unpack(steps)), redis.call('HMGET', open, unpack(steps))
for i, want in ipairs(wants) do
  if memos[i] then
    known[#known + 1] = steps[i]
    known[#known + 1] = memos[i]
  elseif not taken[i] then
    fresh[#fresh + 1] = i
    if not want[2] then lacking[#lacking + 1] = i - 1 end
  end
end
if #known > 1 and (#fresh > 0 or not another_comes()) then return known end
if #lacking > 1 then return lacking end

local function begin(want)
  local spec, ms, till = want[2], want[3], want[4]
  local its = redis.call('HINCRBY', run_key(run), 'branches', 1)
  local key, due, name = branch_key(run, its), '', run .. ':' .. its
  know_queue(spec[4])
  if ms or till then
    due = till or NOW + ms
    put_job(name, spec, NOW, waiting_fields(spec[8], spec[9]))
    schedule_job(spec[1], spec[4], due)
    note(run, 'sleeping', spec[2], 1, worker, {job = spec[1], queue = spec[4], kind = spec[3], ['until'] = due})
  else
    put_job(name, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
    redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
    note(run, 'queued', spec[2], 1, worker, {job = spec[1], queue = spec[4], kind = spec[3]})
  end
  redis.call('HSET', key, 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1, 'due', due,
    'state', due == '' and 'queued' or 'sleeping', 'entry', spec[2])
  redis.call('HSET', open, spec[2], its)
end

local function may_stay(want)
  return ARGV[15] == '1' and want[2][4] == queue and not want[3] and not want[4] and not WAITS[want[2][3]]
end

local stays
for _, i in ipairs(fresh) do
  local spec = wants[i][2]
  if not stays and may_stay(wants[i]) then
    stays = i
    note(run, 'claimed', spec[2], 1, worker, {kind = spec[3], queue = spec[4], in_place = true})
  else
    begin(wants[i])
  end
end
note_lines(run, worker, ARGV[16])
if at[2] then redis.call('HDEL', open, at[2]) end
leave_job(job, queue, worker, exec, lease, unpack(ARGV, 12, 14))
if stays then
  local spec = wants[stays][2]
  put_job(named, spec, NOW, 'flow_losses', 0, started_fields(worker, exec, lease))
  redis.call('HSET', job_key(spec[1]), waiting_fields(spec[8], spec[9]))
  redis.call('HSET', place, 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'attempt', 1, 'due', '', 'entry', spec[2])
  if redis.call('HLEN', open) == 0 then -- it has come together again
    redis.call('HDEL', place, 'entry')
    redis.call('HDEL', run_key(run), 'forked')
    return {'stays', stays - 1, 1}
  end
  redis.call('HSET', open, spec[2], mine)
  redis.call('HSET', run_key(run), 'forked', 1)
  return {'stays', stays - 1, 0}
end
drop_lease(job, queue, worker, lease)
redis.call('HSET', run_key(run), 'forked', 1, 'left', lease)
if place ~= run_key(run) then
  redis.call('DEL', place)
else
  become_first(run, app, fn)
end
return {'left'}
