-- field.lua reads the link of the service ARGV[1].
--
-- Needs:   links

local service = ARGV[1]
local raw = call('HGET', key, service) -- the value of the field; false if there is none
