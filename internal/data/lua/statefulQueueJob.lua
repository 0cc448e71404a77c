-- statefulQueueJob adds a job to those that have not ended.
--
-- Needs:   now
-- Access:  write
-- KEYS[1]: podlink:jobqueue
-- ARGV[1]: <namespace>:<id>
-- ARGV[2]: limit of jobs
-- Reply:   QUEUED: it was added
-- Reply:   KNOWN: it was there; nothing has changed
-- Reply:   LIMITED: there are too many; nothing has changed
-- Repeat:  KNOWN

if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {'KNOWN'} end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return {'LIMITED'} end
redis.call('ZADD', KEYS[1], string.format('%d', now), ARGV[1])
return {'QUEUED'}
