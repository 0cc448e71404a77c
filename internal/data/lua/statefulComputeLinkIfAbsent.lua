-- statefulComputeLinkIfAbsent links the uid to the reserved pod, unless there is a link with another epoch than the one
-- whose pod the caller found unusable, or a persistent one that must stay. It is a compare-and-set on the epoch.
--
-- Needs:   fields
-- Needs:   link
-- Needs:   terms
-- Then:    above
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod, as reserved by statefulReservePod
-- ARGV[4]: limits.max_services
-- ARGV[5]: expected epoch, that of the link whose pod is unusable; 0: there was no link
-- ARGV[6]: 1: only a temporary link is moved; 0 or absent: any
-- ARGV[7]: epoch that a new one must exceed; absent: none
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   KEPT <previous> <pod> <epoch> -1: the uid has this very link already, and it is persistent; nothing has changed
-- Reply:   EXISTING <previous> <pod> <epoch> <ttl>: there is a link with another epoch, or one that must stay; nothing has changed
-- Reply:   TOO_FAR_AHEAD <previous> <pod> <epoch> <ttl>: ARGV[7] is too far ahead of the clock; nothing has changed
-- Reply:   LIMIT_EXCEEDED -1 -1 0 -2: the uid has ARGV[4] other links; nothing has changed
-- Repeat:  EXISTING with the same epoch; nothing changes

local status = 'LINKED'
above = ARGV[7]
if pod and (epoch ~= ARGV[5] or expiry == '0' and ARGV[6] == '1') then status = 'EXISTING' end
