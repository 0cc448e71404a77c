-- clock.lua reads the store's clock: once in a script, so that all of it happens at one time.

local clock
local function now_us()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000000 + time[2]
  end
  return clock
end

local function now_ms()
  return math.floor(now_us() / 1000)
end
