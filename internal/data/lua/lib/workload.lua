-- workload.lua reads and checks the workload.

local stored = call('HMGET', KEYS[1], 'state', 'update_ms')
local state, updated = stored[1], stored[2]
if state or updated then
  local ours = state and updated and is_text(state) and string.find(updated, '^%d+$') and whole(updated, LARGEST)
  if not ours then return redis.error_reply('CORRUPT workload') end
end
