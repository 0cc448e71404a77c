-- statefulSetLink links the uid to the pod, whatever stood before.
--
-- Needs:   fields
-- Needs:   link
-- Then:    bind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds the link lasts; -1: persistent
-- ARGV[3]: pod
-- ARGV[4]: the epoch that the link must have; 0: there must be no link; without it: any
-- Reply:   LINKED <previous> <pod> <epoch> <ttl>: the uid is linked to the pod
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the link that stands has another epoch; nothing has changed
-- Repeat:  LINKED with the same epoch, a temporary link lasts anew; EPOCH_MISMATCH when ARGV[4] named the old epoch

local status = 'LINKED'
if ARGV[4] and ARGV[4] ~= (epoch or '0') then status = 'EPOCH_MISMATCH' end
