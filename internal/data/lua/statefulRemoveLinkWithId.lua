-- statefulRemoveLinkWithId removes the link, or makes it a temporary one, if it is to the pod.
--
-- Needs:   fields
-- Needs:   link
-- Then:    unbind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: pod
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: the link was to the pod; the reply names what stands now
-- Reply:   ABSENT <previous> <pod> <epoch> <ttl>: there is no link to the pod; nothing has changed
-- Repeat:  ABSENT; REMOVED while it is kept, and it lasts anew

local status = 'REMOVED'
if pod ~= ARGV[3] then status = 'ABSENT' end
