-- answer.lua is what every script on one link replies, as one text: what became of the call, the pod of the live link
-- before it (-1: none), and the link that stands now.
--
-- Needs:   ttl

if not pod then return status .. ' ' .. previous .. ' -1 0 -2' end
return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. ttl(expiry)
