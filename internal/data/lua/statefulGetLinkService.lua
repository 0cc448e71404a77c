-- statefulGetLinkService lists every live link of the uid.
--
-- Needs:   links
-- Needs:   clock
-- Needs:   ttl
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- Reply:   LINKS, then <service> and "<pod> <epoch> <ttl>" for every live link, in no order
-- Repeat:  the same

local links = {'LINKS'}
local now
local fields = call('HGETALL', key)
for i = 1, #fields, 2 do
  local pod, epoch, expiry = decode(fields[i + 1])
  if not pod then return redis.error_reply('CORRUPT link') end
  if expiry == '0' then
    links[#links + 1] = fields[i]
    links[#links + 1] = pod .. ' ' .. epoch .. ' -1'
  else
    now = now or clock()
    if expiry * 1000 > tonumber(now) then
      links[#links + 1] = fields[i]
      links[#links + 1] = pod .. ' ' .. epoch .. ' ' .. ttl(expiry, now)
    end
  end
end
return links
