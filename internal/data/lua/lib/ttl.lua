-- ttl.lua is for scripts that answer temporary links.

-- ttl is how many seconds a live temporary link has left.
local function ttl(expiry, now)
  local left = math.ceil((expiry * 1000 - now) / 1000000)
  return string.format('%d', math.min(left, 2147483647)) -- The clock may have been set back since.
end
