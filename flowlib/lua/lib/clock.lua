-- KEYS   none
-- The server's clock, the only one that decides anything. Every script begins with this: ARGV[1] and ARGV[2] are the
-- prefixes of our keys and of RQ's. NOW is milliseconds since the epoch, with microseconds behind the point.
local P, R = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local NOW = time[1] * 1000 + time[2] / 1000

-- RQ's dates: 2026-11-22T18:39:07.123456Z
local iso_of, iso_is
local function iso(at)
  if at == iso_of then return iso_is end
  local seconds = math.floor(at / 1000)
  local micros = math.floor((at - seconds * 1000) * 1000 + 0.5)
  if micros >= 1000000 then seconds, micros = seconds + 1, 0 end
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
  iso_of, iso_is = at, string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day, math.floor(rest / 3600),
    math.floor(rest / 60) % 60, rest % 60, micros)
  return iso_is
end
