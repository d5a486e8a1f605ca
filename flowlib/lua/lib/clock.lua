-- KEYS   none
-- The server's clock, the only one that decides anything. Every script begins with this: ARGV[1] and ARGV[2] are the
-- prefixes of our keys and of RQ's. NOW is milliseconds since the epoch, with microseconds behind the point.
local P, R = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local NOW = time[1] * 1000 + time[2] / 1000

-- RQ's dates: 2026-11-22T18:39:07.123456Z. What is before the point is the same for all dates of one second.
local iso_second, iso_date
local function iso(at)
  local seconds = math.floor(at / 1000)
  local micros = math.floor((at - seconds * 1000) * 1000 + 0.5)
  if micros >= 1000000 then seconds, micros = seconds + 1, 0 end
  if seconds ~= iso_second then
    local days = math.floor(seconds / 86400)
    local rest = seconds - days * 86400
    local z = days + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    local day = doy - math.floor((153 * mp + 2) / 5) + 1
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    iso_second, iso_date = seconds, string.format('%04d-%02d-%02dT%02d:%02d:%02d', year, month, day,
      math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60)
  end
  return string.format('%s.%06dZ', iso_date, micros)
end
