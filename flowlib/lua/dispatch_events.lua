#!lua
--#include clock run metrics job queue start
-- dispatch_events: events start what they trigger in this app, and are acknowledged, all or nothing (I5).
-- An event that comes again starts nothing again.
-- KEYS   1 {P}:events   and those of the libraries
-- ARGV   1 P  2 R  3 app  4 the events, packed: {stream id, name for the metrics, its runs as `start` takes them}
-- reply  for each run in turn {1, run} started; {0, run} this event id has started that run before
local app, replies = ARGV[3], {}
for _, event in ipairs(cmsgpack.unpack(ARGV[4])) do
  for _, run in ipairs(event[3]) do replies[#replies + 1] = start(app, unpack(run)) end
  if redis.call('XACK', KEYS[1], app, event[1]) == 1 then later('events_received|||' .. event[2]) end
end
count_all(app)
return replies
