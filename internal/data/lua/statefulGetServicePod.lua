-- statefulGetServicePod reads one pod.
--
-- Needs:   stored
-- Access:  read
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   FOUND <now> <meta> <report> <burden>: the burden is empty if the pod is buried
-- Reply:   ABSENT: the pod has never reported
-- Repeat:  the same

return described('FOUND', meta.member, report.member)
