-- fields.lua reads what a mutation of the link of the service ARGV[1] has to know: only the link itself when it is to be
-- persistent, ARGV[2] being -1; otherwise all links of the uid, because on them depends how long the key lives.
--
-- Needs:   links

local service = ARGV[1]
local raw, fields -- the field's value, false or nil without one; all fields and values in turn, nil when they were not read
if ARGV[2] == '-1' then
  raw = call('HGET', key, service)
else
  fields = call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] == service then raw = fields[i + 1] end
  end
end
