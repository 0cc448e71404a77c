-- statefulLeave removes a writer that has ended.
--
-- Needs:   writers
-- Access:  write
-- Confirm: no, a writer that comes back after a failover is found dead again
-- KEYS[1]: podlink:writers
-- ARGV[1]: writer
-- ARGV[2]: counter that it must have; 0: any
-- Reply:   LEFT: it was removed
-- Reply:   ALIVE: it has another counter; nothing has changed
-- Reply:   ABSENT: it is not known; nothing has changed
-- Repeat:  ABSENT

local counter = call('HGET', KEYS[1], ARGV[1])
if not counter then return {'ABSENT'} end
if not is_counter(counter) then return redis.error_reply('CORRUPT writers') end
if ARGV[2] ~= '0' and ARGV[2] ~= counter then return {'ALIVE'} end
call('HDEL', KEYS[1], ARGV[1])
return {'LEFT'}
