-- statefulGetLinkService lists every live link of the uid.
--
-- Needs:   link
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- Reply:   LINKS, then <service> <pod> <epoch> <ttl> for every live link, in no order
-- Repeat:  the same

local links = {'LINKS'}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local link = decode(fields[i + 1])
  if not link then return corrupt() end
  if live(link) then links[#links + 1] = {fields[i], state(link)} end
end
return links
