#!lua
--#include clock
-- find_events: events of one name in a part of the stream, from the oldest on: what a wait looks back over.
-- KEYS   1 {P}:events
-- ARGV   1 P  2 R  3 name  4 id of an event: the ones after it  5 how many to look at, at most
-- reply  {the last one that was looked at, or ARGV[4], 1 if there may be more, else 0, {id, {field, value, …}}, …}
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[4], '+', 'COUNT', ARGV[5])
local reply = {#entries > 0 and entries[#entries][1] or ARGV[4], #entries == tonumber(ARGV[5]) and 1 or 0}
for _, entry in ipairs(entries) do
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'name' and entry[2][i + 1] == ARGV[3] then reply[#reply + 1] = entry end
  end
end
return reply
