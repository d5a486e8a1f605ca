#!lua
--#include clock known join
-- register_app: a worker tells which functions its app has, and which events and ends of runs they are on, for all who do
-- not import it; and from now on events are for this app, too.
-- KEYS   1 {P}:apps   and those of the libraries
-- ARGV   1 P  2 R  3 worker, '' if it is none  4 app  5 ends of runs, as lib/tell.lua has them  6 lines `event function`
--        7.. function, its description, …
-- reply  1
local app, heard, on, names = ARGV[4], ARGV[5], ARGV[6], {}
local record = R .. ':worker:' .. ARGV[3]
local beginning = P .. ':beginning:' .. ARGV[3] -- until RQ has heard of it: it may die, or be held up, before that
join(app)
for i = 7, #ARGV, 2 do
  names[#names + 1] = ARGV[i]
  redis.call('HSET', P .. ':functions:' .. app, ARGV[i], ARGV[i + 1])
end
local lines = redis.call('HGET', P .. ':listeners', app) or '\n'
for line in string.gmatch(heard, '[^\n]+') do
  if not string.find(lines, '\n' .. line .. '\n', 1, true) then lines = lines .. line .. '\n' end
end
if lines ~= '\n' then redis.call('HSET', P .. ':listeners', app, lines) end
if ARGV[3] ~= '' then
  -- that of a dead worker of its name, too, is not its own: it is deleted when this one is registered
  local is_registered = redis.call('EXISTS', record) == 1 and redis.call('HEXISTS', record, 'death') == 0
  local told = is_registered and record or beginning
  redis.call('DEL', beginning)
  redis.call('HSET', told, 'flow_app', app, 'flow_functions', table.concat(names, '\n'), 'flow_heard', heard,
    'flow_on', on)
  if told == beginning then redis.call('EXPIRE', told, 60) end
  redis.call('SADD', P .. ':told:' .. app, told)
  forget_unknown(app)
end
return 1
