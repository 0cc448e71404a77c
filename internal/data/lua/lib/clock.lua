-- clock.lua reads the store's clock. A script reads it at most once, so that all of it happens at one time.

-- clock returns the µs since 1970 as a text, for it is stored and compared as one.
local function clock()
  local time = redis.call('TIME')
  local us = time[2]
  if #us < 6 then us = string.sub('00000' .. us, -6) end
  return time[1] .. us
end
