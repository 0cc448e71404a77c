-- reply_temporary.lua is the part of reply.lua for an unchanged temporary link.
--
-- Needs:   ttl

left = ttl(expiry, now)
if claim then left = left .. ' ' .. claim end
return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. left
