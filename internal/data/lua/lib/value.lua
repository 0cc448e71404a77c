-- value.lua detects values that podlink did not write: a script reports them and leaves them unchanged. data/parse.go must
-- accept every value that is accepted here, or a mutation would be executed and then reported as failed.

local call = redis.call

-- The maximum values, as strings. Lua's numbers are doubles, exact up to 2^53; sums of times must remain below that.
local LARGEST, LARGEST_TIME, LARGEST_INT32 = '9007199254740991', '999999999999999', '2147483647'

-- whole reports whether digits are a number as podlink writes it: without leading zeros, and not greater than most. It
-- compares strings, which is cheaper than converting them to numbers.
local function whole(digits, most)
  if #digits == 1 then return true end
  return digits >= '1' and (#digits < #most or #digits == #most and digits <= most)
end
