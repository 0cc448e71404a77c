-- link.lua stands before every script on one link, the field ARGV[1] of the hash. It reads the field, and ends the script
-- when podlink did not write it. The script itself says in status what becomes of the call.
--
-- Needs:   links

local service = ARGV[1]

local raw = call('HGET', key, service) -- the field's value; false without one
local last_epoch, last_expiry -- those of the link that it holds, expired or not; nil without one
local pod, epoch, expiry -- the live link; nil without one
if raw then
  pod, epoch, expiry = decode(raw)
  if not pod then return redis.error_reply('CORRUPT link') end
  last_epoch, last_expiry = epoch, expiry
  if expiry ~= '0' and tonumber(expiry) <= now_ms() then pod, epoch, expiry = nil, nil, nil end
end
local previous = pod or '-1'
