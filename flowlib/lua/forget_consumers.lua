#!lua flags=allow-oom
--#include clock worker
-- forget_consumers: consumers of workers that are gone leave the group, once nothing is pending with them.
-- That is safe at any time: should one come back after all, its next read makes it a consumer again.
-- KEYS   1 {P}:events   and those of the library
-- ARGV   1 P  2 R  3 app
-- reply  how many were forgotten
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local ours, forgotten = false, 0
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if group[2] == ARGV[3] then ours = true end
end
if not ours then return 0 end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[3])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['pending'] == 0 and is_gone(about['name']) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[3], about['name'])
    forgotten = forgotten + 1
  end
end
return forgotten
