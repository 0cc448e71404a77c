-- statefulSetLink links the uid to the pod, replacing any link.
--
-- Needs:   fields
-- Needs:   link
-- Needs:   terms
-- Then:    above
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod
-- ARGV[4]: limits.max_services
-- ARGV[5]: expected epoch; 0: there must be no link; -1 or absent: any
-- ARGV[6]: claim, the generation of the pod's process that takes the link; 0 or absent: none
-- ARGV[7]: epoch that a new one must exceed; 0 or absent: none
-- ARGV[8]: pod that the link must have; absent: any or none
-- ARGV[9]: 1: the link must be persistent; 0: it must not be; absent: either
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   KEPT <previous> <pod> <epoch> -1: the uid has this very link already, and it is persistent; nothing has changed
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the current link has another epoch, not the pod ARGV[8], or is not as ARGV[9]
--          says; nothing has changed
-- Reply:   SUPERSEDED <previous> <pod> <epoch> <ttl>: a later process of the pod has claimed the link; nothing has changed
-- Reply:   TOO_FAR_AHEAD <previous> <pod> <epoch> <ttl>: ARGV[7] is too far ahead of the clock; nothing has changed
-- Reply:   LIMIT_EXCEEDED -1 -1 0 -2: the uid has ARGV[4] other links; nothing has changed
-- Repeat:  KEPT, or LINKED with the same epoch, which restarts the TTL; EPOCH_MISMATCH if ARGV[5] was the old epoch and there is
--          no claim

local status = 'LINKED'
local expected = ARGV[5]
if expected then
  if ARGV[6] then
    above = ARGV[7]
    if ARGV[6] ~= '0' then claimant = ARGV[6] end
    if ARGV[8] and pod ~= ARGV[8] or ARGV[9] and (expiry == '0') ~= (ARGV[9] == '1') then
      status, expected = 'EPOCH_MISMATCH', '-1'
    elseif not claimant or pod ~= ARGV[3] then
      -- There is no claim, or the pod is a new owner anyway.
    elseif claim == claimant and not (above and above - epoch >= 0) then
      expected = '-1' -- A repeated claim.
    elseif claim and claim - claimant > 0 then
      status, expected = 'SUPERSEDED', '-1'
    else
      renewed = true
    end
  end
  if expected ~= '-1' and expected ~= (epoch or '0') then status = 'EPOCH_MISMATCH' end
end
