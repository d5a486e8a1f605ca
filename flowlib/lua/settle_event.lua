#!lua flags=allow-oom
--#include clock run
-- settle_event: an event has started all it starts in this app: acknowledge it, and count it once.
-- KEYS   1 {P}:events   and {P}:metrics:{app}
-- ARGV   1 P  2 R  3 app  4 stream id  5 event name for the metrics
-- reply  1 | 0 it was settled before
if redis.call('XACK', KEYS[1], ARGV[3], ARGV[4]) == 0 then return 0 end
count(ARGV[3], 'events_received|||' .. ARGV[5])
return 1
