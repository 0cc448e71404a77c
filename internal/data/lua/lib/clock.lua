-- clock.lua reads the store's clock: once in a script, so that all of it happens at one time.
--
-- Needs:   value

local clock
local function now_us()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000000 + time[2]
  end
  return clock
end

local function now_ms()
  local us = now_us()
  return (us - us % 1000) / 1000
end
