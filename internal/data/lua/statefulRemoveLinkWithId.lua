-- statefulRemoveLinkWithId removes the link, or makes it a temporary one, if it is to the pod.
--
-- Needs:   link
-- Access:  write
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- ARGV[2]: seconds to keep the link; 0: remove it now
-- ARGV[3]: pod
-- Reply:   REMOVED <previous> <pod> <epoch> <ttl>: the link was to the pod; the reply names what stands now
-- Reply:   ABSENT <previous> <pod> <epoch> <ttl>: there is no link to the pod; nothing has changed
-- Repeat:  ABSENT; REMOVED while it is kept, and it lasts anew

local failure = load()
if failure then return failure end
if not current or current.pod ~= ARGV[3] then return answer('ABSENT', current) end
return answer('REMOVED', unbind(ARGV[2]))
