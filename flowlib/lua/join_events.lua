#!lua
--#include clock
-- join_events: an app's consumer group on the stream: the first app reads it from its beginning, later ones from its end.
-- KEYS   1 {P}:events   and {P}:apps
-- ARGV   1 P  2 R  3 app
-- reply  1 joined | 0 was there already
redis.call('SADD', P .. ':apps', ARGV[3])
local first = true
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    first = false
    if group[2] == ARGV[3] then return 0 end
  end
end
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[3], first and '0' or '$', 'MKSTREAM')
return 1
