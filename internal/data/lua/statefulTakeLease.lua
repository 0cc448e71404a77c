-- statefulTakeLease gives a lease to a holder, or renews it, unless another one has it.
--
-- Access:  write
-- Confirm: no, what two holders do after a failover is done twice at worst
-- KEYS[1]: podlink:lease:<name>
-- ARGV[1]: holder
-- ARGV[2]: TTL in ms
-- Reply:   HELD: the holder has the lease
-- Reply:   BUSY: another one has it; nothing has changed
-- Repeat:  HELD, which restarts the TTL

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'BUSY'} end
redis.call('SET', KEYS[1], ARGV[1], 'px', ARGV[2])
return {'HELD'}
