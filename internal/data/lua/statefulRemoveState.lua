-- statefulRemoveState deletes a pod's report. If it is the last one, it marks the service as one that has reported.
--
-- Needs:   pod
-- Access:  write
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   REMOVED {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>}: the deleted report
-- Reply:   ABSENT {}: there was none; nothing has changed
-- Repeat:  ABSENT

local report, failure = read(ARGV[1])
if failure then return failure end
if not report then return {'ABSENT', {}} end
local reply = {'REMOVED', describe(report)}
if call('HLEN', key) == 1 then
  -- Set the mark before deleting the last field, which deletes the key: while its slot is migrated, a script can't write
  -- to a deleted key, and if the ACL denies HSET, the service must not lose its report.
  -- A removal must work even if Redis is out of memory, where a script may still write after its first write. PERSIST is a
  -- first write that needs no memory and changes nothing: the key has no TTL.
  call('PERSIST', key)
  call('HSET', key, MARK, '1')
end
call('HDEL', key, ARGV[1])
return reply
