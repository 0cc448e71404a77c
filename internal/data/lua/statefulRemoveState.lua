-- statefulRemoveState forgets a pod's report, and marks the service as one that has reported.
--
-- Needs:   pod
-- Access:  write
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   REMOVED {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>}: the report that was there
-- Reply:   ABSENT {}: there was none; nothing has changed
-- Repeat:  ABSENT

local report, failure = read(ARGV[1])
if failure then return failure end
if not report then return {'ABSENT', {}} end
local answer = {'REMOVED', describe(report)}
local last = redis.call('HLEN', key) == 1
redis.call('HDEL', key, ARGV[1])
-- The last field took the key with it, and with the key the mark: so the mark stands alone only where it must. It comes
-- second, because a removal has to work also when Redis is out of memory, and a script that has written may write on.
if last then redis.call('HSET', key, MARK, '1') end
return answer
