-- statefulGetServicePod reads one pod.
--
-- Needs:   pod
-- Access:  read
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   FOUND {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>}: the report
-- Reply:   ABSENT {}: the pod has never reported
-- Repeat:  the same

local report, failure = read(ARGV[1])
if failure then return failure end
return {report and 'FOUND' or 'ABSENT', describe(report)}
