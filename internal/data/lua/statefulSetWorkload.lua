-- statefulSetWorkload stores the state of a workload, as of now.
--
-- Needs:   value
-- Needs:   clock
-- Needs:   text
-- Access:  write
-- KEYS[1]: podlink:workload:<namespace>:<service>
-- ARGV[1]: state
-- Reply:   STORED <update>: the Unix time in ms
-- Repeat:  STORED with a later time

local stored = call('HMGET', KEYS[1], 'state', 'update_ms')
local state, updated = stored[1], stored[2]
if state or updated then
  local ours = state and updated and is_text(state) and string.find(updated, '^%d+$') and whole(updated, LARGEST)
  if not ours then return redis.error_reply('CORRUPT workload') end
end

local update = string.sub(clock(), 1, -4)
call('HSET', KEYS[1], 'state', ARGV[1], 'update_ms', update)
return {'STORED', update}
