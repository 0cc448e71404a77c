-- value.lua tells what podlink writes from what it does not. What it did not write, a script reports and leaves as it
-- is; what is accepted here, reply.go accepts as well, or a mutation would be carried out and then reported as failed.

local call = redis.call

-- The most that numbers may be, as texts. Numbers are doubles here, exact up to 2^53; what is counted on must stay below.
local LARGEST, LARGEST_COUNTED, LARGEST_INT32 = '9007199254740991', '9007199254740990', '2147483647'

-- whole tells whether digits are a number as podlink writes it: without zeros before it, and at most that large. It
-- compares texts, which costs less than making numbers of them.
local function whole(digits, most)
  if #digits == 1 then return true end
  return digits >= '1' and (#digits < #most or #digits == #most and digits <= most)
end
