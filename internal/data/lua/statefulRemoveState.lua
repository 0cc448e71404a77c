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
if call('HLEN', key) == 1 then
  -- The last field takes the key with it, and with the key the mark. So the mark comes first: a script whose key has gone
  -- may write no more while a slot moves, and a user who has lost the right to write it must not lose it either.
  -- But a removal has to work also when Redis is out of memory, where a script that has written once may write on. This is
  -- the write that needs no memory and changes nothing: the key has no TTL.
  call('PERSIST', key)
  call('HSET', key, MARK, '1')
end
call('HDEL', key, ARGV[1])
return answer
