-- The end of a run as events: flow/run.finished, and flow/run.completed, failed or cancelled; in the stroke that ends it, and
-- only those that somebody listens for.
-- Who does is in {P}:listeners: for each app the lines `name` and `name app/function` of what its functions are on, and
-- `waits|name`, how many runs wait for it. While there is nobody, a run's end costs one look for that key.
-- Needs lib/run.lua.
-- KEYS   {P}:listeners {P}:events {P}:run:{run}
local LARGEST = 512 * 1024 -- bytes of a result that is told; anybody can read a larger one in the run's record

-- What the codec writes: text, UTC times as its extension 5; parts that are stored are put in as they are.
local pack, NIL = cmsgpack.pack, '\192'
local function moment(at)
  local told = string.sub(iso(at), 1, -2) .. '|0|+0'
  return '\199' .. string.char(#told) .. '\5' .. told
end
local function map(...)
  local told = {}
  for i = 1, select('#', ...), 2 do told[#told + 1] = pack((select(i, ...))) .. select(i + 1, ...) end
  return string.char(128 + #told) .. table.concat(told)
end
local function stored(packed) return packed and packed ~= '' and packed or NIL end

local function ending(run, app, fn, status, r)
  local event = map('name', pack(r[1]), 'id', pack(r[2]), 'ts', moment(tonumber(r[3])), 'data', r[4])
  local result = r[5] and #r[5] <= LARGEST and r[5]
  return map('app', pack(app), 'function', pack(fn), 'run', pack(run), 'status', pack(status), 'event', event,
    'result', stored(result), 'error', stored(r[6]), 'reason', pack(r[7] or ''))
end

local function is_heard(listeners, name, app, fn)
  for i = 1, #listeners, 2 do
    local wanted = listeners[i + 1]
    if listeners[i] == 'waits|' .. name or string.find(wanted, '\n' .. name .. '\n', 1, true)
      or string.find(wanted, '\n' .. name .. ' ' .. app .. '/' .. fn .. '\n', 1, true) then return true end
  end
end

-- Of a run that such an event has started, and of its children, nothing is told: no handler is called for a handler, and
-- nothing goes round.
local function tell_end(run, app, fn, status)
  local listeners = redis.call('HGETALL', P .. ':listeners')
  if #listeners == 0 then return end
  local data
  for _, how in ipairs({status, 'finished'}) do
    local name = 'flow/run.' .. how
    if is_heard(listeners, name, app, fn) then
      local r = redis.call('HMGET', run_key(run), 'event_name', 'event_id', 'event_ts', 'data', 'result', 'error', 'reason',
        'untold')
      if r[8] or string.sub(r[1], 1, 9) == 'flow/run.' then return end
      data = data or ending(run, app, fn, status, r)
      local id = string.format('%s.%s.%d', run, how, NOW) -- a run that is tried again may end again
      redis.call('XADD', P .. ':events', '*', 'id', id, 'name', name, 'data', data, 'ts', 0)
    end
  end
end
