#!lua
-- send_events: append events to the stream: all of them, or none.
-- KEYS   1 {P}:events
-- ARGV   1 P  2 R  3.. id, name, data, ts ms (0: now), for each event
-- reply  how many
for i = 3, #ARGV, 4 do
  redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'name', ARGV[i + 1], 'data', ARGV[i + 2], 'ts', ARGV[i + 3])
end
return (#ARGV - 2) / 4
