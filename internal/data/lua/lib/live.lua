-- live.lua judges the age of reports, as Hearing in biz does.
--
-- Needs:   pod

local DEAD, IN_DOUBT, LIVE = 0, 1, 2

-- liveness judges a report by its ttl, its time, and the value of heard then.
local function liveness(meta, ttl, at, heard)
  if ttl == '-1' then return LIVE end
  local limit, age = ttl * 1000, meta.heard - heard
  if age <= limit then
    if now <= at + limit then return LIVE end
    return IN_DOUBT
  end
  if meta.resumed <= tonumber(heard) or meta.heard - meta.resumed > limit or age > 3 * limit then return DEAD end
  return IN_DOUBT
end
