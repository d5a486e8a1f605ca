-- Which functions of an app anybody knows: workers of two versions may be at work side by side, and each says in RQ's record of
-- it what it knows: flow_app, flow_functions, flow_on, the events that these are on, and flow_heard, the ends of runs
-- (lib/tell.lua); as lines, because RQ takes all that is there for text.
-- KEYS   {P}:functions:{app} {P}:subscribed:{app} {P}:listeners {R}:workers {R}:worker:{w}

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
