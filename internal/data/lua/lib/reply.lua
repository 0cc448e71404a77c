-- reply.lua returns the reply of every script on one link, as one text: the status, the pod of the live link before the
-- call (-1: none), and the current link: <pod> <epoch> <ttl>, followed by <claim> if there is one.
--
-- Then:    reply_temporary

if not pod then return status .. ' ' .. previous .. ' -1 0 -2' end
if expiry == '0' then left = '-1' end
if left and claim then left = left .. ' ' .. claim end
if left then return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. left end
