-- value.lua tells what podlink writes from what it does not. What it did not write, a script reports and leaves as it
-- is; what is accepted here, reply.go accepts as well, or a mutation would be carried out and then reported as failed.

local LARGEST = 9007199254740991 -- numbers are doubles here, exact up to 2^53
local LARGEST_INT32 = 2147483647

-- whole tells whether digits are a number as podlink writes it: without zeros before it, and at most that large.
local function whole(digits, most)
  return #digits <= 16 and not string.find(digits, '^0%d') and tonumber(digits) <= most
end

-- The runes above ASCII by their first bytes; Lua has no UTF-8 of its own.
local RUNES = {
  '[\194-\223][\128-\191]',
  '\224[\160-\191][\128-\191]',
  '\237[\128-\159][\128-\191]',
  '[\225-\236\238\239][\128-\191][\128-\191]',
  '\240[\144-\191][\128-\191][\128-\191]',
  '\244[\128-\143][\128-\191][\128-\191]',
  '[\241-\243][\128-\191][\128-\191][\128-\191]',
}
local ABOVE_ASCII = '[\128-\255]'

-- is_text tells whether the text is valid UTF-8 and not empty.
local function is_text(text)
  if not string.find(text, ABOVE_ASCII) then return text ~= '' end
  for _, rune in ipairs(RUNES) do
    text = string.gsub(text, rune, ' ')
  end
  return not string.find(text, ABOVE_ASCII)
end
