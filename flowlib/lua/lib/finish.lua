-- A run ends: its status never changes again (I6), nothing of it is left but what expires with its retention.
-- Needs lib/run.lua, lib/metrics.lua, lib/cancel_on.lua, lib/tell.lua and lib/children.lua.
-- KEYS   {P}:run|memo|history:{run} {P}:active:{app} {P}:timers, channel {P}:ended!{run}
local function end_run(run, status, worker, detail, fields)
  local r = redis.call('HMGET', run_key(run), 'app', 'function', 'state', 'created', 'retention', 'step', 'attempt',
    'starts_by', 'ends_by', 'cancels', 'parent')
  local app, fn = r[1], r[2]
  redis.call('HSET', run_key(run), 'status', status, 'ended', NOW, 'state', '', 'due', '', unpack(fields))
  note(run, status, r[6] or '', r[7], worker, detail)
  for _, kind in ipairs({'run', 'memo', 'history', 'order'}) do
    redis.call('EXPIRE', P .. ':' .. kind .. ':' .. run, r[5])
  end
  redis.call('ZREM', P .. ':active:' .. app, run)
  if r[8] or r[9] then redis.call('ZREM', P .. ':timers', run .. '!start', run .. '!end') end
  if r[10] then forget_cancels(app, run, r[10]) end
  set_state(run_key(run), app, fn, r[3], nil)
  count(app, 'runs_finished|' .. fn .. '|' .. status .. '|')
  observe(app, 'run_seconds', fn, status, RUN_EDGES, (NOW - tonumber(r[4])) / 1000)
  redis.call('PUBLISH', P .. ':ended!' .. run, status)
  tell_end(run, app, fn, status)
  if r[11] then tell_parent(run, r[11], status) end
end
