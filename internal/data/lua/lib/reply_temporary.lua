-- reply_temporary.lua is the part of reply.lua for an unchanged temporary link.
--
-- Needs:   ttl

return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. ttl(expiry, now)
