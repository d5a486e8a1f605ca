#!lua flags=allow-oom
--#include clock
-- forget_workers: a worker that was killed stays in RQ's lists; when its own key has expired, it is taken out of them.
-- KEYS   1 {R}:workers   and {R}:workers:{q} {R}:worker:{w}
-- ARGV   1 P  2 R  3.. queues
-- reply  how many places were cleared
local lists, cleared = {KEYS[1]}, 0
for q = 3, #ARGV do lists[#lists + 1] = KEYS[1] .. ':' .. ARGV[q] end
for _, list in ipairs(lists) do
  for _, worker in ipairs(redis.call('SMEMBERS', list)) do
    if redis.call('EXISTS', worker) == 0 then cleared = cleared + redis.call('SREM', list, worker) end
  end
end
return cleared
