-- statefulListJob adds a job to the list of a namespace, and drops those that were created more than 30 days ago.
--
-- Needs:   now
-- Access:  write
-- Confirm: no, whoever runs the job adds it again
-- KEYS[1]: podlink:jobs:<namespace>
-- ARGV[1]: <created>-<id>; the time is Unix time in ms
-- Reply:   LISTED: it is in the list
-- Repeat:  LISTED

redis.call('ZADD', KEYS[1], '0', ARGV[1])
redis.call('PEXPIRE', KEYS[1], '2592000000')
redis.call('ZREMRANGEBYLEX', KEYS[1], '-', '(' .. string.format('%d', now - 2592000000))
return {'LISTED'}
