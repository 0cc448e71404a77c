-- clock.lua reads the store's clock. A script calls it at most once, so that it uses a single time.

-- clock returns the Unix time in µs as a string, because it is stored and compared as one.
local function clock()
  local time = redis.call('TIME')
  local us = time[2]
  if #us < 6 then us = string.sub('00000' .. us, -6) end
  return time[1] .. us
end
