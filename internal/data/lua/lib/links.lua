-- links.lua is the common part of all scripts on KEYS[1], the hash of all links of one uid: service ->
-- "<pod> <epoch> <expiry>", followed by " <claim>" if a process of the pod has claimed the link: its generation. The epoch is
-- Unix time in µs; the expiry is Unix time in ms, 0 for a persistent link. A link is live until its expiry, to the millisecond.
--
-- These scripts dominate the load of Redis, so they avoid work: a link stays three or four strings, converted to numbers only
-- for arithmetic, and code is inlined where possible. Each run of a script creates its functions, so there are few, and they
-- have no upvalues.

local ARGV = ARGV -- A local is faster than a global.
local call = redis.call
local key = KEYS[1]

-- decode returns the pod, the epoch, the expiry and the claim (nil: none) of a value, nothing if podlink did not write the
-- value. Numbers must have no leading zeros and a limited size: Lua's numbers are doubles, exact up to 2^53, and there must be
-- room for a greater epoch. data/parse.go must accept every value that decode accepts, or a mutation would be executed and
-- then reported as failed.
local function decode(value)
  local pod, epoch, expiry = string.match(value, '^(%d+) ([1-9]%d*) (%d+)$')
  local claim
  if not pod then
    pod, epoch, expiry, claim = string.match(value, '^(%d+) ([1-9]%d*) (%d+) ([1-9]%d*)$')
    if not pod or #claim > 15 and (#claim > 16 or claim > '4503599627370495') then return end
  end
  if pod ~= '0' and (pod < '1' or #pod > 9 and (#pod > 10 or pod > '2147483647')) then return end
  if #epoch > 15 and (#epoch > 16 or epoch > '9007199254740990') then return end
  if expiry ~= '0' and (expiry < '1' or #expiry > 15 and (#expiry > 16 or expiry > '9007199254740991')) then return end
  return pod, epoch, expiry, claim
end
