-- statefulUnqueueJob removes a job from those that have not ended, unless it was added a moment ago: it may be about to be created.
--
-- Needs:   now
-- Access:  write
-- Confirm: no, whoever finds it again removes it again
-- KEYS[1]: podlink:jobqueue
-- ARGV[1]: <namespace>:<id>
-- ARGV[2]: how long it must have been there, in ms
-- Reply:   REMOVED: it was removed
-- Reply:   KEPT: it was not there, or not for so long; nothing has changed
-- Repeat:  KEPT

local added = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not added or now - added < tonumber(ARGV[2]) then return {'KEPT'} end
redis.call('ZREM', KEYS[1], ARGV[1])
return {'REMOVED'}
