-- statefulRemoveLink removes the link, or makes it a temporary one.
--
-- Needs:   link
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: the epoch that the link must have; 0: there must be no link; empty: any
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: there was a link; the reply names what stands now
-- Reply:   ABSENT -1 -1 0 -2: there was none
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the link that stands has another epoch; nothing has changed
-- Repeat:  ABSENT, or EPOCH_MISMATCH when ARGV[3] named the old epoch; REMOVED while it is kept, and it lasts anew

local failure = load()
if failure then return failure end
if not has_epoch(ARGV[3]) then return answer('EPOCH_MISMATCH', current) end
if not current then return answer('ABSENT', nil) end
return answer('REMOVED', unbind(ARGV[2]))
