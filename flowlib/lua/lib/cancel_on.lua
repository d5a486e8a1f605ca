-- Runs that an event cancels (`cancel_on=`): found, like waits, by one look for each list of fields by which any is matched.
-- Of a run: {its event's id in the stream: the ones after it count, an event up to which nothing has come that cancels it,
-- the id of one that does or '', {event name, fields, digest}, …}.
-- Needs lib/run.lua.
-- KEYS   {P}:cancels:{app}:{event}:{digest} {P}:fields:{app}:{event} {P}:run:{run}
local function cancels_key(app, name, digest) return P .. ':cancels:' .. app .. ':' .. name .. ':' .. digest end

local function expect_cancels(app, run, cancels)
  if cancels[1] == '' then cancels[1] = string.format('%d-0', NOW) end
  redis.call('HSET', run_key(run), 'cancels', cmsgpack.pack(cancels))
  for i = 4, #cancels do
    local name, fields, digest = unpack(cancels[i])
    if redis.call('ZADD', cancels_key(app, name, digest), string.match(cancels[1], '^%d+'), run .. '|' .. cancels[1]) == 1 then
      redis.call('HINCRBY', P .. ':fields:' .. app .. ':' .. name, fields, 1)
    end
  end
end

-- Of a run that begins, or goes on, because somebody asks for it: what comes from now on cancels it.
local function expect_again(app, run, packed)
  local cancels = cmsgpack.unpack(packed)
  cancels[1] = ''
  expect_cancels(app, run, cancels)
end

-- Coming again, it finds nothing to forget: the run's record goes on saying which they were.
local function forget_cancels(app, run, packed)
  local cancels = cmsgpack.unpack(packed)
  for i = 4, #cancels do
    local name, fields, digest = unpack(cancels[i])
    if redis.call('ZREM', cancels_key(app, name, digest), run .. '|' .. cancels[1]) == 1 then
      local key = P .. ':fields:' .. app .. ':' .. name
      if redis.call('HINCRBY', key, fields, -1) <= 0 then redis.call('HDEL', key, fields) end
    end
  end
end
