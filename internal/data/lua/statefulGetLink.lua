-- statefulGetLink reads the link. A persistent link can be read without a script; the TTL of a temporary one depends on the
-- store's clock.
--
-- Needs:   field
-- Needs:   link
-- Then:    reply
-- Access:  read
-- KEYS[1]: podlink:link:<namespace>:<uid>
-- ARGV[1]: service
-- Reply:   FOUND <previous> <pod> <epoch> <ttl>: the link
-- Reply:   ABSENT -1 -1 0 -2: there is none
-- Reply:   EXPIRED -1 -1 0 -2: there is an expired one
-- Repeat:  the same

local status = 'FOUND'
if not pod then status = last_expiry and 'EXPIRED' or 'ABSENT' end
