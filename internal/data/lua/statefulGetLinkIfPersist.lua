-- statefulGetLinkIfPersist reads the link if it is persistent.
--
-- Needs:   link
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- Reply:   FOUND <previous> <pod> <epoch> <ttl>: the persistent link
-- Reply:   ABSENT <previous> -1 0 -2: there is none, or it is temporary
-- Repeat:  the same

local failure = load()
if failure then return failure end
if current and current.expiry == 0 then return answer('FOUND', current) end
return answer('ABSENT', nil)
