-- statefulComputeLinkIfAbsent links the uid to the reserved pod, unless there is a link with another epoch than the one
-- whose pod the caller found unusable. It is a compare-and-set on the epoch.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod, as reserved by statefulReservePod
-- ARGV[4]: expected epoch, that of the link whose pod is unusable; 0: there was no link
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EXISTING <previous> <pod> <epoch> <ttl>: there is a link with another epoch; nothing has changed
-- Repeat:  EXISTING with the same epoch; nothing changes

local status = 'LINKED'
if pod and epoch ~= ARGV[4] then status = 'EXISTING' end
