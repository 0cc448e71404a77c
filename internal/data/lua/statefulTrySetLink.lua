-- statefulTrySetLink links the uid to the pod unless it has a persistent link to another pod.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod
-- ARGV[4]: limits.max_services
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   REFUSED <previous> <pod> <epoch> <ttl>: there is a persistent link to another pod; nothing has changed
-- Reply:   LIMIT_EXCEEDED -1 -1 0 -2: the uid has ARGV[4] other links; nothing has changed
-- Repeat:  LINKED with the same epoch, which restarts the TTL

local status = 'LINKED'
if expiry == '0' and pod ~= ARGV[3] then status = 'REFUSED' end
