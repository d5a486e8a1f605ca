#!lua flags=no-writes
--#include clock
-- read_keys: some keys as they are, many at a time: for those who look at everything, and want to disturb nobody for long.
-- KEYS   1 {P}:leases (names the slot)   and those in question
-- ARGV   1 P  2 R  3.. keys
-- reply  for each in turn {type, ms until it expires or -1, value: of a stream its length}
local READ = {
  string = {'GET'}, hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'},
  zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, stream = {'XLEN'},
}
local replies = {}
for i = 3, #ARGV do
  local kind = redis.call('TYPE', ARGV[i]).ok
  local how = READ[kind]
  replies[#replies + 1] = {kind, redis.call('PTTL', ARGV[i]), how and redis.call(how[1], ARGV[i], unpack(how, 2)) or ''}
end
return replies
