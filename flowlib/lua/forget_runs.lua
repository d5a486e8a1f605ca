#!lua flags=allow-oom
--#include clock run
-- forget_runs: runs whose records have expired leave their app's index. Looks at a part of it, the oldest first.
-- KEYS   1 {P}:runs:{app}   and {P}:run:{run}
-- ARGV   1 P  2 R  3 how many places to leave out  4 how many to look at
-- reply  {how many were looked at, how many of them were forgotten}
local runs = redis.call('ZRANGE', KEYS[1], ARGV[3], ARGV[3] + ARGV[4] - 1)
local expired = {}
for _, run in ipairs(runs) do
  if redis.call('EXISTS', run_key(run)) == 0 then expired[#expired + 1] = run end
end
if #expired > 0 then redis.call('ZREM', KEYS[1], unpack(expired)) end
return {#runs, #expired}
