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
-- ARGV[5]: pod that the link must have; absent: any or none
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   KEPT <previous> <pod> <epoch> -1: the uid has this very link already, and it is persistent; nothing has changed
-- Reply:   REFUSED <previous> <pod> <epoch> <ttl>: there is a persistent link to another pod, or none to the pod ARGV[5]; nothing
--          has changed
-- Reply:   LIMIT_EXCEEDED -1 -1 0 -2: the uid has ARGV[4] other links; nothing has changed
-- Repeat:  KEPT, or LINKED with the same epoch, which restarts the TTL

local status = 'LINKED'
if pod ~= ARGV[3] and expiry == '0' or ARGV[5] and pod ~= ARGV[5] then status = 'REFUSED' end
