-- statefulSetLink links the uid to the pod, replacing any link.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: TTL of the link in seconds; -1: persistent
-- ARGV[3]: pod
-- ARGV[4]: expected epoch; 0: there must be no link; absent: any
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the current link has another epoch; nothing has changed
-- Repeat:  LINKED with the same epoch, which restarts the TTL; EPOCH_MISMATCH if ARGV[4] was the old epoch

local status = 'LINKED'
if ARGV[4] and ARGV[4] ~= (epoch or '0') then status = 'EPOCH_MISMATCH' end
