-- statefulSetLinkIfAbsent links the uid to the pod unless it has a link.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EXISTING <previous> <pod> <epoch> <ttl>: there is a link; nothing has changed
-- Repeat:  EXISTING with the same epoch; nothing changes

local status = 'LINKED'
if pod then status = 'EXISTING' end
