-- An app's consumer group on the stream: the first app reads it from its beginning, later ones from its end. It is there before
-- anybody can know of a function of the app: else what is asked of that would be read by nobody, if the worker dies in between.
-- KEYS   {P}:events {P}:apps
-- Returns 1, or 0 if it was there already.
local function join(app)
  local events, first = P .. ':events', true
  redis.call('SADD', P .. ':apps', app)
  if redis.call('EXISTS', events) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', events)) do
      first = false
      if group[2] == app then return 0 end
    end
  end
  redis.call('XGROUP', 'CREATE', events, app, first and '0' or '$', 'MKSTREAM')
  return 1
end
