-- A run that fails or is cancelled, and has done what it can undo, does that first: the memo `=ending:1` says so, and how it
-- then ends. It is put back with its last job; who claims it finds what to undo by replaying the function over its memos.
-- Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua and lib/cancel_on.lua.
-- KEYS   {P}:run|memo:{run} {P}:timers, those of the libraries
local function is_undoing(run) return redis.call('HEXISTS', P .. ':memo:' .. run, '=ending:1') == 1 end

local function can_undo(run)
  local memos = P .. ':memo:' .. run
  if redis.call('HEXISTS', memos, '=undo:1') == 1 then return true end
  -- a step may be recorded, and its worker dead before the next line
  return redis.call('HEXISTS', run_key(run), 'undoes') == 1 and redis.call('EXISTS', memos) == 1
end

-- `error` is packed; `fields` are further ones of the run. It is at no other place any more, and at its last job.
local function undo_first(run, status, error, reason, fields)
  local r = redis.call('HMGET', run_key(run), 'app', 'function', 'state', 'job', 'queue', 'step', 'attempt', 'cancels')
  local app, fn, state, job, queue = unpack(r, 1, 5)
  local pack = cmsgpack.pack
  local memo = 'v\130' .. pack('status') .. pack(status) .. pack('error') .. error
  redis.call('HSET', P .. ':memo:' .. run, '=ending:1', memo)
  redis.call('HINCRBY', run_key(run), 'values', 1)
  redis.call('HINCRBY', run_key(run), 'bytes', #memo)
  redis.call('HSET', run_key(run), 'due', '', unpack(fields))
  redis.call('ZREM', P .. ':timers', run .. '!start', run .. '!end')
  if r[8] then forget_cancels(app, run, r[8]) end
  redis.call('HDEL', run_key(run), 'asks', 'armed', 'starts_by', 'ends_by') -- no time is over for it any more
  -- calls and losses of the function are one thing, those of its undoing are another
  redis.call('HDEL', job_key(job), 'flow_branch', 'flow_calls', 'flow_losses')
  note(run, 'undoing', r[6], r[7], '', {status = status, reason = reason})
  if redis.call('HEXISTS', job_key(job), 'data') == 1 then -- else the reconciler finds that it is missing
    forget_end(job, queue)
    queue_job(job, queue, true)
  end
  set_state(run_key(run), app, fn, state, 'queued')
end
