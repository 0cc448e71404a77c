-- text.lua tells whether a text is one that podlink writes. It stands apart from value.lua, because the scripts on links
-- have no text to look at.

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
