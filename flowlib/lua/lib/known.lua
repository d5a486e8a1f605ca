-- Which functions of an app anybody knows: workers of two versions may be at work side by side, and each says in RQ's record of
-- it what it knows: flow_app, flow_functions, flow_on, the events that these are on, and flow_heard, the ends of runs
-- (lib/tell.lua); as lines, because RQ takes all that is there for text. It is known for as long as that record is there: a
-- minute longer than the worker, so that one that is started again, as the only one of its version, finds what came meanwhile;
-- and from before RQ has heard of it.
-- KEYS   {P}:functions:{app} {P}:subscribed:{app} {P}:told:{app} {P}:asked:{app} {P}:listeners {P}:events
--        {R}:workers {R}:worker:{w} {P}:beginning:{w}

-- Which functions are on an event, a line each: those that an event starts, or that it may cancel the runs of.
local function subscribe(app, on)
  local key, gone = P .. ':subscribed:' .. app, {}
  for _, event in ipairs(redis.call('HKEYS', key)) do gone[event] = true end
  for event, functions in pairs(on) do
    local lines = {}
    for fn in pairs(functions) do lines[#lines + 1] = fn end
    table.sort(lines)
    redis.call('HSET', key, event, '\n' .. table.concat(lines, '\n') .. '\n')
    gone[event] = nil
  end
  for event in pairs(gone) do redis.call('HDEL', key, event) end
end

-- What no worker knows is forgotten; if there is none that has told, all stays as it is.
local function forget_unknown(app)
  local any, known, lines, heard, on = false, {}, {}, {}, {}
  for _, record in ipairs(redis.call('SMEMBERS', P .. ':told:' .. app)) do
    local told = redis.call('HMGET', record, 'flow_app', 'flow_functions', 'flow_heard', 'flow_on')
    if told[1] ~= app then
      redis.call('SREM', P .. ':told:' .. app, record)
    else
      any = true
      for fn in string.gmatch(told[2], '[^\n]+') do known[fn] = true end
      for line in string.gmatch(told[3], '[^\n]+') do lines[line] = true end
      for event, fn in string.gmatch(told[4] or '', '([^\n]+) (%S+)') do
        on[event] = on[event] or {}
        on[event][fn] = true
      end
    end
  end
  if not any then return end
  for _, fn in ipairs(redis.call('HKEYS', P .. ':functions:' .. app)) do
    if not known[fn] then redis.call('HDEL', P .. ':functions:' .. app, fn) end
  end
  subscribe(app, on)
  for line in pairs(lines) do heard[#heard + 1] = line end
  if #heard == 0 then
    redis.call('HDEL', P .. ':listeners', app)
  else
    table.sort(heard)
    redis.call('HSET', P .. ':listeners', app, '\n' .. table.concat(heard, '\n') .. '\n')
  end
end

local function is_line(lines, line) return string.find(lines, '\n' .. line .. '\n', 1, true) ~= nil end

-- Functions that were asked about an event that has been handed over, a line each.
local some_handed
local function asked_before(app, id)
  local key = P .. ':asked:' .. app
  if some_handed == nil then some_handed = redis.call('EXISTS', key) == 1 end
  return some_handed and redis.call('HGET', key, id) or '\n'
end

local function forget_asked(app, id)
  if some_handed then redis.call('HDEL', P .. ':asked:' .. app, id) end
end

-- A function that a living worker has on an event and that nobody has asked yet, and the place that it is on. Its dispatcher
-- has asked those that it knows, a line each; others may be found in these places.
local function unasked(app, before, asked, ...)
  for _, place in ipairs({...}) do
    local functions = redis.call('HGET', P .. ':subscribed:' .. app, place)
    if functions and functions ~= asked then
      for fn in string.gmatch(functions, '[^\n]+') do
        if not is_line(asked, fn) and not is_line(before, fn) then return fn, place end
      end
    end
  end
end

-- A worker that has told this line in this field, the one that was heard of last; or nobody, until that is forgotten.
local heirs = {}
local function heir_of(app, field, line)
  local last
  if heirs[line] then return heirs[line] end
  heirs[line] = 'nobody'
  for _, record in ipairs(redis.call('SMEMBERS', R .. ':workers')) do
    local told = redis.call('HMGET', record, 'flow_app', field, 'last_heartbeat', 'death')
    if told[1] == app and not told[4] and (not last or (told[3] or '') > last)
        and is_line('\n' .. (told[2] or '') .. '\n', line) then
      heirs[line], last = string.sub(record, #R + 9), told[3] or ''
    end
  end
  return heirs[line]
end

-- With what was asked of it so far. False: another dispatcher has settled it.
local function hand_over(app, id, heir, before, asked)
  if #redis.call('XCLAIM', P .. ':events', app, heir, 0, id, 'JUSTID') == 0 then return false end
  local all = before
  for fn in string.gmatch(asked, '[^\n]+') do
    if not is_line(all, fn) then all = all .. fn .. '\n' end
  end
  if all ~= before then redis.call('HSET', P .. ':asked:' .. app, id, all) end
  return true
end
