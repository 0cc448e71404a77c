-- statefulRemoveLinkWithId removes the link, or turns it into a temporary one, if it is to the pod.
--
-- Needs:   fields
-- Needs:   link
-- Then:    unbind
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: pod
-- Reply:   REMOVED <previous> -1 0 -2 <removed>: the link was to the pod; the epoch of the removed link
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: the link was to the pod; the link that is kept
-- Reply:   ABSENT <previous> <pod> <epoch> <ttl>: there is no link to the pod; nothing has changed
-- Repeat:  ABSENT; REMOVED while it is kept, which restarts its TTL

local status = 'REMOVED'
if pod ~= ARGV[3] then status = 'ABSENT' end
