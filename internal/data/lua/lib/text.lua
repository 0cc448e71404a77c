-- text.lua validates UTF-8.

-- The encodings of runes above ASCII; this version of Lua has no UTF-8 library.
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

-- is_text reports whether the string is not empty and valid UTF-8.
local function is_text(text)
  if not string.find(text, ABOVE_ASCII) then return text ~= '' end
  for _, rune in ipairs(RUNES) do
    text = string.gsub(text, rune, ' ')
  end
  return not string.find(text, ABOVE_ASCII)
end
