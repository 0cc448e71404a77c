-- links.lua stands before every script on KEYS[1], the hash of all links of one uid: service -> "<pod> <epoch> <expiry>".
-- The epoch is in µs, the expiry in ms since 1970, 0 for a persistent link. The expiry decides, to the millisecond.
--
-- These scripts are what Redis spends its time with. So a link stays the three texts that it is stored as, a number is
-- made of one only to calculate with it, and what can be a plain sequence is no function: each function, and each
-- variable that it uses from outside, is made anew whenever a script runs.
--
-- Needs:   clock

local key = KEYS[1]

-- decode returns the pod, the epoch and the expiry that a field's value stands for, nothing when podlink did not write it.
local function decode(value)
  local pod, epoch, expiry = string.match(value, '^(%d+) ([1-9]%d*) (%d+)$')
  if pod and whole(pod, LARGEST_INT32) and whole(epoch, LARGEST_COUNTED) and whole(expiry, LARGEST) then
    return pod, epoch, expiry
  end
end
