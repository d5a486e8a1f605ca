#!lua flags=allow-oom
--#include clock run metrics
-- name_label: the metrics label of a step: its own, or `_other` once its function has a hundred. Asked once per process.
-- KEYS   1 {P}:metrics:{app}
-- ARGV   1 P  2 R  3 app  4 function  5 label
-- reply  {label, if that is `_other` all that have one of their own: then none other need be asked about}
local reply = {step_label(ARGV[3], ARGV[4], ARGV[5])}
if reply[1] ~= '_other' then return reply end
local prefix = 'label|' .. ARGV[4] .. '||'
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, #prefix) == prefix then reply[#reply + 1] = string.sub(field, #prefix + 1) end
end
return reply
