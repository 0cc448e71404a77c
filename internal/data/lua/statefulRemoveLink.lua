-- statefulRemoveLink removes the link, or turns it into a temporary one.
--
-- Needs:   fields
-- Needs:   link
-- Then:    unbind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: expected epoch; 0: there must be no link; -1 or absent: any
-- ARGV[4]: pod that a link must have; absent: any
-- Reply:   REMOVED <previous> -1 0 -2 <removed>: there was a link; the epoch of the removed link
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: there was a link; the link that is kept
-- Reply:   ABSENT -1 -1 0 -2: there was none
-- Reply:   EPOCH_MISMATCH <previous> <pod> <epoch> <ttl>: the current link has another epoch, or not the pod ARGV[4]; nothing has
--          changed
-- Repeat:  ABSENT, or EPOCH_MISMATCH if ARGV[3] was the old epoch; REMOVED while it is kept, which restarts its TTL

local status = 'REMOVED'
if ARGV[3] and ARGV[3] ~= (epoch or '0') and ARGV[3] ~= '-1' then
  status = 'EPOCH_MISMATCH'
elseif not pod then
  status = 'ABSENT'
elseif ARGV[4] and pod ~= ARGV[4] then
  status = 'EPOCH_MISMATCH'
end
