#!lua flags=allow-oom
--#include clock
-- keep_house: one worker of all fires timers and reaps; take that duty, or keep it, for a few seconds.
-- KEYS   1 {P}:housekeeper
-- ARGV   1 P  2 R  3 worker  4 ms, or 0 to give it up
-- reply  1 it is ours | 0 another's
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[3] then return 0 end
if ARGV[4] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
