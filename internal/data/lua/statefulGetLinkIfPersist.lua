-- statefulGetLinkIfPersist reads the link if it is persistent.
--
-- Needs:   field
-- Needs:   link
-- Then:    reply
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- Reply:   FOUND <previous> <pod> <epoch> <ttl>: the persistent link
-- Reply:   ABSENT <previous> -1 0 -2: there is none, or it is temporary
-- Repeat:  the same

local status = 'FOUND'
if expiry ~= '0' then status, pod = 'ABSENT', nil end
