-- statefulSetLinkIfAbsent links the uid to the pod unless it has a link.
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
-- ARGV[5]: claim, the generation of the pod's process that takes the link; 0 or absent: none
-- ARGV[6]: epoch that a new one must exceed; absent: none
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EXISTING <previous> <pod> <epoch> <ttl>: there is a link; nothing has changed
-- Reply:   TOO_FAR_AHEAD <previous> <pod> <epoch> <ttl>: ARGV[6] is too far ahead of the clock; nothing has changed
-- Reply:   LIMIT_EXCEEDED -1 -1 0 -2: the uid has ARGV[4] other links; nothing has changed
-- Never:   KEPT: there is no link that could be as asked
-- Repeat:  EXISTING with the same epoch; nothing changes

local status = 'LINKED'
if ARGV[5] then
  above = ARGV[6]
  if ARGV[5] ~= '0' then claimant = ARGV[5] end
end
if pod then status = 'EXISTING' end
