-- statefulSetState stores a pod's report, as of now, and resets its reservation count.
--
-- Needs:   pod
-- Access:  write
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod
-- ARGV[2]: state
-- ARGV[3]: load
-- ARGV[4]: routing; 0: READY, 1: DENY_NEW, 2: SHUTDOWN
-- ARGV[5]: TTL of the report in seconds; -1: it never expires
-- Reply:   STORED {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>} {the same of the previous report, or nothing}
-- Repeat:  STORED with a later heartbeat, and the first report as the previous one

local before, failure = read(ARGV[1])
if failure then return failure end
local report = {
  pod = ARGV[1],
  state = ARGV[2],
  load = ARGV[3],
  given = '0',
  routing = ARGV[4],
  ttl = ARGV[5],
  heartbeat = string.format('%d', now_ms()),
}
write(report)
return {'STORED', describe(report), describe(before)}
