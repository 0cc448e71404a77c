-- fields.lua reads the fields for a mutation of the link of the service ARGV[1]: only the link itself if it will be
-- persistent (ARGV[2] is -1), otherwise all links of the uid, because the TTL of the key depends on them.
--
-- Needs:   links

local service = ARGV[1]
local raw, fields -- the value of the field, false or nil if there is none; the reply of HGETALL, nil if it was not called
if ARGV[2] == '-1' then
  raw = call('HGET', key, service)
else
  fields = call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] == service then raw = fields[i + 1] end
  end
end
