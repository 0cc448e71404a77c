-- statefulGetLinkService lists every live link of the uid.
--
-- Needs:   links
-- Needs:   clock
-- Needs:   ttl
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- Reply:   LINKS, then <service> and "<pod> <epoch> <ttl>" or "<pod> <epoch> <ttl> <claim>" for every live link, in no order
-- Repeat:  the same

local links = {'LINKS'}
local now
local fields = call('HGETALL', key)
for i = 1, #fields, 2 do
  local pod, epoch, expiry, claim = decode(fields[i + 1])
  if not pod then return redis.error_reply('CORRUPT link') end
  local left
  if expiry == '0' then
    left = '-1'
  else
    now = now or clock()
    if expiry * 1000 > tonumber(now) then left = ttl(expiry, now) end
  end
  if left then
    if claim then left = left .. ' ' .. claim end
    links[#links + 1] = fields[i]
    links[#links + 1] = pod .. ' ' .. epoch .. ' ' .. left
  end
end
return links
