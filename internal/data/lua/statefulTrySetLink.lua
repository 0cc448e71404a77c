-- statefulTrySetLink links the uid to the pod unless a persistent link to another pod stands.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds the link lasts; -1: persistent
-- ARGV[3]: pod
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   REFUSED <previous> <pod> <epoch> <ttl>: a persistent link to another pod stands; nothing has changed
-- Repeat:  LINKED with the same epoch, a temporary link lasts anew

local status = 'LINKED'
if expiry == '0' and pod ~= ARGV[3] then status = 'REFUSED' end
