-- answer.lua is what every script on one link replies, as one text: what became of the call, the pod of the live link
-- before it (-1: none), and the link that stands now.
--
-- Then:    answer_temporary

if not pod then return status .. ' ' .. previous .. ' -1 0 -2' end
if expiry == '0' then left = '-1' end
if left then return status .. ' ' .. previous .. ' ' .. pod .. ' ' .. epoch .. ' ' .. left end
