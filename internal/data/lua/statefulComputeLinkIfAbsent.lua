-- statefulComputeLinkIfAbsent links the uid to the pod that was reserved for it, unless a link stands that the caller
-- has not judged: one with another epoch than that of the link it found to be on an unusable pod.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds the link lasts; -1: persistent
-- ARGV[3]: pod, as reserved by statefulReservePod
-- ARGV[4]: epoch of the link whose pod is unusable; 0: there was no link
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EXISTING <previous> <pod> <epoch> <ttl>: a link stands that was not judged; nothing has changed
-- Repeat:  EXISTING with the same epoch; nothing changes

local status = 'LINKED'
if pod and epoch ~= ARGV[4] then status = 'EXISTING' end
