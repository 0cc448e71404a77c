-- answer_temporary.lua goes on with answer.lua where a temporary link stands as before.
--
-- Needs:   ttl

return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. ttl(expiry, now)
