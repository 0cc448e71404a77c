-- statefulReleaseLease ends a lease of the holder.
--
-- Access:  write
-- Confirm: no, a lease that a failover brings back expires
-- KEYS[1]: podlink:lease:<name>
-- ARGV[1]: holder
-- Reply:   RELEASED: nobody has the lease
-- Reply:   ABSENT: the holder did not have it; nothing has changed
-- Repeat:  ABSENT

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'ABSENT'} end
redis.call('DEL', KEYS[1])
return {'RELEASED'}
