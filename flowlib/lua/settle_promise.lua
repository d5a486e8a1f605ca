#!lua flags=allow-oom
--#include clock run metrics job queue wait
-- settle_promise: a promise of a run is resolved or rejected, once. If the run waits for it, it goes on in the same stroke;
-- else the outcome is kept until it does.
-- allow-oom: a run that is under way when Redis is full goes on to its end.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 run  4 step  5 memo  6 token of this request: sent again, it gets the same answer
-- reply  'settled' | 'unknown' | 'late' (it has been settled) | 'over' (its time was over) | 'ended' (the run has)
local run, step, memo, token = unpack(ARGV, 3, 6)
local memos, settled, by = P .. ':memo:' .. run, '=settled:' .. step, 'settled|' .. redis.sha1hex(step)
local r = redis.call('HMGET', run_key(run), 'status', 'app', by)
if not r[1] then return 'unknown' end
if r[3] == token then return 'settled' end
if redis.call('HEXISTS', memos, settled) == 1 then return 'late' end
if r[1] ~= 'running' then return 'ended' end
local place = place_key(run, redis.call('HGET', open_key(run), step))
local was_awaited = redis.call('HGET', place, 'armed') == step -- by now a worker may be about to say that its time is over
local is_awaited = redis.call('EXISTS', waiters_key(r[2], 'flow/promise', run .. '/' .. step)) == 1
if redis.call('HEXISTS', memos, step) == 1 or (was_awaited and not is_awaited) then return 'over' end
redis.call('HSET', memos, settled, memo)
redis.call('HSET', run_key(run), by, token)
redis.call('HINCRBY', run_key(run), 'bytes', #memo)
redis.call('HINCRBY', run_key(run), 'values', 1)
note(run, 'noted', settled, 0, '', {bytes = #memo})
deliver_to_each(r[2], 'flow/promise', run .. '/' .. step, memo, '')
return 'settled'
