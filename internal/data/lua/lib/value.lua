-- value.lua tells what podlink writes from what it does not. What it did not write, a script reports and leaves as it
-- is; what is accepted here, reply.go accepts as well, or a mutation would be carried out and then reported as failed.

local LARGEST = 9007199254740991 -- numbers are doubles here, exact up to 2^53
local LARGEST_INT32 = 2147483647

-- whole tells whether digits are a number as podlink writes it: without zeros before it, and at most that large.
local function whole(digits, most)
  return #digits <= 16 and not string.find(digits, '^0%d') and tonumber(digits) <= most
end

-- digits writes a whole number; '..' would round it to 14 digits.
local function digits(number)
  return string.format('%.0f', number)
end
