-- link.lua decodes the field that field.lua or fields.lua has read. It ends the script with an error if podlink did not
-- write the field. The script then sets status.
--
-- Needs:   links
-- Needs:   clock

local now -- the store's clock; set if the field has a temporary link
local last_epoch, last_expiry -- of the link in the field, expired or not; nil if there is none
local pod, epoch, expiry, claim -- the live link; nil if there is none, or no claim
local left -- the TTL of the link in seconds, as a string; set once it is known
if raw then
  pod, epoch, expiry, claim = decode(raw)
  if not pod then return redis.error_reply('CORRUPT link') end
  last_epoch, last_expiry = epoch, expiry
  if expiry ~= '0' then
    now = clock()
    if expiry * 1000 <= tonumber(now) then pod, epoch, expiry, claim = nil, nil, nil, nil end
  end
end
local previous = pod or '-1'
