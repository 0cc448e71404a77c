-- ttl.lua computes the TTL of temporary links.

-- ttl returns the remaining seconds of a live temporary link, rounded up.
local function ttl(expiry, now)
  local left = math.ceil((expiry * 1000 - now) / 1000000)
  return string.format('%d', math.min(left, 2147483647)) -- The clock may have been set back since.
end
