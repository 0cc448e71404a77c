-- link.lua follows field.lua or fields.lua, and ends the script when podlink did not write the field. The script itself
-- says in status what becomes of the call.
--
-- Needs:   links
-- Needs:   clock

local now -- the store's clock; set when the live link is a temporary one
local last_epoch, last_expiry -- those of the link in the field, expired or not; nil without one
local pod, epoch, expiry -- the live link; nil without one
local left -- seconds that the live link has left, a text; set when it is known already
if raw then
  pod, epoch, expiry = decode(raw)
  if not pod then return redis.error_reply('CORRUPT link') end
  last_epoch, last_expiry = epoch, expiry
  if expiry ~= '0' then
    now = clock()
    if expiry * 1000 <= tonumber(now) then pod, epoch, expiry = nil, nil, nil end
  end
end
local previous = pod or '-1'
