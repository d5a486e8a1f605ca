#!lua flags=allow-oom
--#include clock job
-- confirm_lease: a worker that has heard nothing for long, or been paused, is about to begin a body: may it?
-- It may be wrong by as long as it takes the answer to get there, as always: what it does then is dropped (I2).
-- KEYS   1 {P}:leases
-- ARGV   1 P  2 R  3 worker  4 lease  5 to 9 as in all scripts of who holds one  10 lease ms
-- reply  'held' (for that long from now) | 'fenced'
local lease = ARGV[4]
if not is_held(lease) then return 'fenced' end
redis.call('ZADD', P .. ':leases', NOW + ARGV[10], lease)
return 'held'
