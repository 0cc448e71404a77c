-- statefulGetServicePod reads one pod.
--
-- Needs:   pod
-- Access:  read
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   FOUND <now> <meta> <report> <burden>: the burden is empty if the pod is buried
-- Reply:   ABSENT: the pod has never reported
-- Repeat:  the same

local report = find(ARGV[1])
if report == false then return corrupt() end
if not report then return {'ABSENT'} end
local meta, burden = read_meta(), not report.buried and burden_of(report)
if not meta or not report.buried and not burden then return corrupt() end
return {'FOUND', integer(now), meta.member, report.member, burden and integer(burden) or ''}
