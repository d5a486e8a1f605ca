#!lua
-- send_events: append events to the stream: all of them, or none.
-- KEYS   1 {P}:events
-- ARGV   1 P  2 R  3 0, or: the reply to an earlier try was lost, and what came in the last so many ms may be these very events
--        4.. id, name, data, ts ms (0: now), meta ('': none), for each event
-- reply  how many
local FURTHEST, AT_ONCE = 10000, 100 -- events that are looked at

-- Those that an earlier try has stored are not stored again: whoever waits for one after the other would get it twice.
local function sent_before(ms)
  local before, upto, time = {}, '+', redis.call('TIME')
  local since = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) - ms)
  for _ = 1, FURTHEST / AT_ONCE do
    local entries = redis.call('XREVRANGE', KEYS[1], upto, since, 'COUNT', AT_ONCE)
    for _, entry in ipairs(entries) do before[entry[2][2] .. '\0' .. entry[2][4]] = true end -- id and name
    if #entries < AT_ONCE then break end
    upto = '(' .. entries[#entries][1]
  end
  return before
end

local before = ARGV[3] == '0' and {} or sent_before(tonumber(ARGV[3]))
for i = 4, #ARGV, 5 do
  local id, name, data, ts, meta = unpack(ARGV, i, i + 4)
  if before[id .. '\0' .. name] then
    -- nothing is left to be done
  elseif meta == '' then
    redis.call('XADD', KEYS[1], '*', 'id', id, 'name', name, 'data', data, 'ts', ts)
  else
    redis.call('XADD', KEYS[1], '*', 'id', id, 'name', name, 'data', data, 'ts', ts, 'meta', meta)
  end
end
return (#ARGV - 3) / 5
