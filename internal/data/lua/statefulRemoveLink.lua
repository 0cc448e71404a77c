-- statefulRemoveLink removes the link, or makes it a temporary one.
--
-- Needs:   fields
-- Needs:   link
-- Then:    unbind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: the epoch that the link must have; 0: there must be no link; without it: any
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: there was a link; the reply names what stands now
-- Reply:   ABSENT -1 -1 0 -2: there was none
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the link that stands has another epoch; nothing has changed
-- Repeat:  ABSENT, or EPOCH_MISMATCH when ARGV[3] named the old epoch; REMOVED while it is kept, and it lasts anew

local status = 'REMOVED'
if ARGV[3] and ARGV[3] ~= (epoch or '0') then
  status = 'EPOCH_MISMATCH'
elseif not pod then
  status = 'ABSENT'
end
