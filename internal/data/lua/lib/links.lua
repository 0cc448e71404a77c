-- links.lua stands before every script on KEYS[1], the hash of all links of one uid: service -> "<pod> <epoch> <expiry>".
-- The epoch is in µs, the expiry in ms since 1970, 0 for a persistent link. The expiry decides, to the millisecond.
--
-- These scripts are what Redis spends its time with. So a link stays the three texts that it is stored as, a number is
-- made of one only to calculate with it, and what can be a plain sequence is no function. Lua makes a function anew
-- whenever a script comes to it: those that there are use no variable from outside, which would have to be made as well.

local call = redis.call
local key = KEYS[1]

-- decode returns the pod, the epoch and the expiry that a field's value stands for, nothing when podlink did not write it:
-- without zeros before a number, and with none that is too large. Numbers are doubles here, exact up to 2^53, and there
-- has to be room for a greater epoch. What is accepted here, reply.go accepts as well, or a mutation would be carried out
-- and then reported as failed.
local function decode(value)
  local pod, epoch, expiry = string.match(value, '^(%d+) ([1-9]%d*) (%d+)$')
  if not pod then return end
  if pod ~= '0' and (pod < '1' or #pod > 9 and (#pod > 10 or pod > '2147483647')) then return end
  if #epoch > 15 and (#epoch > 16 or epoch > '9007199254740990') then return end
  if expiry ~= '0' and (expiry < '1' or #expiry > 15 and (#expiry > 16 or expiry > '9007199254740991')) then return end
  return pod, epoch, expiry
end
