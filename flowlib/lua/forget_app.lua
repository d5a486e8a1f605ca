#!lua flags=allow-oom
--#include clock
-- forget_app: an app that will not come back. No event is kept for it any more, and it is in no list; what its runs have left
-- expires as ever.
-- KEYS   1 {P}:events   and {P}:apps {P}:active:{app} {P}:runs:{app} {P}:functions|subscribed|told|asked|metrics|cron|refused|settled:{app}
--        {P}:listeners
-- ARGV   1 P  2 R  3 app  4 ms for which its workers must have been silent
-- reply  {'unknown', 0} | {'alive', ms since a worker read events} | {'unfinished', runs} | {'forgotten', events it had not read}
local app = ARGV[3]
local known, unread = redis.call('SISMEMBER', P .. ':apps', app) == 1, 0
local function about(pairs)
  local told = {}
  for i = 1, #pairs, 2 do told[pairs[i]] = pairs[i + 1] end
  return told
end
local group
for _, each in ipairs(redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}) do
  local told = about(each)
  if told.name == app then group = told end
end
if not known and not group then return {'unknown', 0} end
if group then
  for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], app)) do
    local idle = about(each).idle
    if idle < tonumber(ARGV[4]) then return {'alive', idle} end
  end
  unread = group.pending + (group.lag or redis.call('XLEN', KEYS[1]))
end
local unfinished = redis.call('ZCARD', P .. ':active:' .. app)
if unfinished > 0 then return {'unfinished', unfinished} end
if group then redis.call('XGROUP', 'DESTROY', KEYS[1], app) end
redis.call('SREM', P .. ':apps', app)
redis.call('HDEL', P .. ':listeners', app)
for _, kind in ipairs({'runs', 'functions', 'subscribed', 'told', 'asked', 'metrics', 'cron', 'refused', 'settled'}) do
  redis.call('DEL', P .. ':' .. kind .. ':' .. app)
end
return {'forgotten', unread}
