-- writers.lua checks the counter of a writer.
--
-- Needs:   value

-- is_counter reports whether the text is a counter as podlink writes it.
local function is_counter(text) return string.find(text, '^[1-9]%d*$') and whole(text, LARGEST_TIME) end
