#!lua flags=allow-oom
--#include clock
-- trim_events: forget events older than the retention, but never one that some app has not read and settled (I5).
-- KEYS   1 {P}:events
-- ARGV   1 P  2 R  3 retention ms
-- reply  how many were forgotten
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function parts(id) return tonumber(string.match(id, '^%d+')), tonumber(string.match(id, '%-(%d+)$')) or 0 end
local least, sequence = math.floor(NOW - tonumber(ARGV[3])), 0
local function not_beyond(id, after)
  local at, seq = parts(id)
  seq = seq + after
  if at < least or (at == least and seq < sequence) then least, sequence = at, seq end
end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return 0 end
for _, group in ipairs(groups) do
  local name, last
  for i = 1, #group, 2 do
    if group[i] == 'name' then name = group[i + 1] elseif group[i] == 'last-delivered-id' then last = group[i + 1] end
  end
  not_beyond(last, 1)
  local pending = redis.call('XPENDING', KEYS[1], name)
  if pending[2] then not_beyond(pending[2], 0) end
end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%d-%d', least, sequence))
