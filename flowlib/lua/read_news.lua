#!lua flags=no-writes
--#include clock
-- read_news: the memos of a run that were written since a claim has read them all. It may tell some that were known.
-- KEYS   1 {P}:history:{run}   and {P}:memo:{run}
-- ARGV   1 P  2 R  3 run  4 entries of the history that are known  5 the last of them
-- reply  {entries there are, the last of them, memos there are, step, memo, …} | nil: read all of them, because the history
--        is another one, or too much is new, or a memo may have been replaced
local MOST = 200 -- entries
local run, length, mark = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local entries = redis.call('LRANGE', KEYS[1], length - 1, length + MOST)
if entries[1] ~= mark or #entries > MOST then return nil end
local steps, known = {}, {[''] = true}
for i = 2, #entries do
  local _, kind, step = unpack(cmsgpack.unpack(entries[i]))
  if kind == 'retried' then return nil end
  if not known[step] then
    known[step] = true
    steps[#steps + 1] = step
  end
end
local reply = {length + #entries - 1, entries[#entries], redis.call('HLEN', P .. ':memo:' .. run)}
local memos = #steps > 0 and redis.call('HMGET', P .. ':memo:' .. run, unpack(steps)) or {}
for i, step in ipairs(steps) do
  if memos[i] then
    reply[#reply + 1] = step
    reply[#reply + 1] = memos[i]
  end
end
return reply
