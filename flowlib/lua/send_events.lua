#!lua
-- send_events: append events to the stream: all of them, or none.
-- KEYS   1 {P}:events
-- ARGV   1 P  2 R  3.. id, name, data, ts ms (0: now), meta ('': none), for each event
-- reply  how many
for i = 3, #ARGV, 5 do
  local id, name, data, ts, meta = unpack(ARGV, i, i + 4)
  if meta == '' then
    redis.call('XADD', KEYS[1], '*', 'id', id, 'name', name, 'data', data, 'ts', ts)
  else
    redis.call('XADD', KEYS[1], '*', 'id', id, 'name', name, 'data', data, 'ts', ts, 'meta', meta)
  end
end
return (#ARGV - 2) / 5
