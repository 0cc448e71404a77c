-- ttl.lua is for scripts that answer links.

-- ttl is how many seconds a live link has left.
local function ttl(expiry)
  if expiry == '0' then return '-1' end
  local left = math.ceil((tonumber(expiry) - now_ms()) / 1000)
  return format('%d', math.min(left, tonumber(LARGEST_INT32))) -- The clock may have been set back since.
end
