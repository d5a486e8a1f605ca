-- Which functions of an app anybody knows: workers of two versions may be at work side by side, and each says in RQ's record of
-- it what it knows: flow_app, flow_functions and flow_heard, the ends of runs that these are on (lib/tell.lua); as lines,
-- because RQ takes all that is there for text.
-- KEYS   {P}:functions:{app} {P}:listeners {R}:workers {R}:worker:{w}

-- What no living worker knows is forgotten; if there is none that has told, all stays as it is.
local function forget_unknown(app)
  local alive, known, lines, heard = false, {}, {}, {}
  for _, record in ipairs(redis.call('SMEMBERS', R .. ':workers')) do
    local told = redis.call('HMGET', record, 'flow_app', 'flow_functions', 'flow_heard', 'death')
    if told[1] == app and not told[4] then
      alive = true
      for fn in string.gmatch(told[2], '[^\n]+') do known[fn] = true end
      for line in string.gmatch(told[3], '[^\n]+') do lines[line] = true end
    end
  end
  if not alive then return end
  for _, fn in ipairs(redis.call('HKEYS', P .. ':functions:' .. app)) do
    if not known[fn] then redis.call('HDEL', P .. ':functions:' .. app, fn) end
  end
  for line in pairs(lines) do heard[#heard + 1] = line end
  if #heard == 0 then
    redis.call('HDEL', P .. ':listeners', app)
  else
    table.sort(heard)
    redis.call('HSET', P .. ':listeners', app, '\n' .. table.concat(heard, '\n') .. '\n')
  end
end
