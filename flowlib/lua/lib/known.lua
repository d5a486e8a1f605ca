-- Which functions of an app anybody knows: workers of two versions may be at work side by side, and each says in RQ's record of
-- it what it knows: flow_app, flow_functions, flow_on, the events that these are on, and flow_heard, the ends of runs
-- (lib/tell.lua); as lines, because RQ takes all that is there for text.
-- KEYS   {P}:functions:{app} {P}:subscribed:{app} {P}:asked:{app} {P}:listeners {P}:events {R}:workers {R}:worker:{w}

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

-- What no living worker knows is forgotten; if there is none that has told, all stays as it is.
local function forget_unknown(app)
  local alive, known, lines, heard, on = false, {}, {}, {}, {}
  for _, record in ipairs(redis.call('SMEMBERS', R .. ':workers')) do
    local told = redis.call('HMGET', record, 'flow_app', 'flow_functions', 'flow_heard', 'death', 'flow_on')
    if told[1] == app and not told[4] then
      alive = true
      for fn in string.gmatch(told[2], '[^\n]+') do known[fn] = true end
      for line in string.gmatch(told[3], '[^\n]+') do lines[line] = true end
      for event, fn in string.gmatch(told[5] or '', '([^\n]+) (%S+)') do
        on[event] = on[event] or {}
        on[event][fn] = true
      end
    end
  end
  if not alive then return end
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

-- To the dispatcher of a worker that has this function on events of this place, the one that was heard of last.
local function hand_over(app, id, place, fn)
  local name, last
  for _, record in ipairs(redis.call('SMEMBERS', R .. ':workers')) do
    local told = redis.call('HMGET', record, 'flow_app', 'flow_on', 'last_heartbeat', 'death')
    if told[1] == app and not told[4] and (not last or (told[3] or '') > last)
        and string.find('\n' .. told[2] .. '\n', '\n' .. place .. ' ' .. fn .. '\n', 1, true) then
      name, last = string.sub(record, #R + 9), told[3] or ''
    end
  end
  if name then redis.call('XCLAIM', P .. ':events', app, name, 0, id, 'JUSTID') end
end

-- Has every function that a living worker has on this event been asked about it? Then it may be settled. The dispatcher has
-- asked those that it knows, a line each; others may be found in these places. What is left is for who knows one of them.
local handed
local function all_asked(app, id, asked, ...)
  local key, before, place, unknown = P .. ':asked:' .. app, '\n', '', nil
  if handed == nil then handed = redis.call('EXISTS', key) == 1 end
  if handed then before = redis.call('HGET', key, id) or before end
  for _, each in ipairs({...}) do
    local functions = redis.call('HGET', P .. ':subscribed:' .. app, each)
    if functions and functions ~= asked then
      for fn in string.gmatch(functions, '[^\n]+') do
        local line = '\n' .. fn .. '\n'
        if not string.find(asked, line, 1, true) and not string.find(before, line, 1, true) then place, unknown = each, fn end
      end
    end
  end
  if not unknown then
    if before ~= '\n' then redis.call('HDEL', key, id) end
    return true
  end
  for fn in string.gmatch(asked, '[^\n]+') do
    if not string.find(before, '\n' .. fn .. '\n', 1, true) then before = before .. fn .. '\n' end
  end
  if before ~= '\n' then
    redis.call('HSET', key, id, before)
    handed = true
  end
  hand_over(app, id, place, unknown)
  return false
end
