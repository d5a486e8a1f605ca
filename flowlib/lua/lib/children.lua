-- Runs that other runs have invoked. A parent waits for its child's id, and is told in the stroke that ends the child.
-- Needs lib/run.lua, lib/wait.lua.
-- KEYS   {P}:run:{run} {P}:functions:{app} {P}:events, those of lib/wait.lua
local CHILD = 'flow/child'

-- Does the parent still wait for it? If it does not, it has ended, or its time was over.
local function is_awaited(parent, child)
  local app = redis.call('HGET', run_key(parent), 'app')
  return app and redis.call('EXISTS', waiters_key(app, CHILD, child)) == 1
end

local function failure(type, message)
  return 'e' .. cmsgpack.pack({type = type, message = message, traceback = ''})
end

-- How a run has ended, as the memo of the step that has invoked it.
local function memo_of(run, status)
  local r = redis.call('HMGET', run_key(run), 'result', 'error', 'reason')
  if status == 'completed' then return 'i' .. r[1] end
  if status == 'failed' then return 'e' .. r[2] end
  local why = r[3] and r[3] ~= '' and ': ' .. r[3] or ''
  return failure('RunCancelled', 'run ' .. run .. ' was cancelled' .. why)
end

local function tell_parent(run, parent, status)
  local app = redis.call('HGET', run_key(parent), 'app')
  if not app then return end -- it has expired
  deliver_to_each(app, CHILD, run, memo_of(run, status), run)
end

-- Have a child begin: by an event, because only the workers of its app know how. Returns what there is to say of it at
-- once, as a memo: it has ended before, or there is no such function.
local function invoke(child, data, app, fn)
  local status = redis.call('HGET', run_key(child), 'status')
  if status then return status ~= 'running' and memo_of(child, status) or nil end
  if redis.call('HEXISTS', P .. ':functions:' .. app, fn) == 0 then
    return failure('NotFound', 'function ' .. app .. '/' .. fn .. ' does not exist: `flow functions` lists those that workers have declared')
  end
  redis.call('XADD', P .. ':events', '*', 'id', child, 'name', 'flow/invoke', 'data', data, 'ts', 0)
end
