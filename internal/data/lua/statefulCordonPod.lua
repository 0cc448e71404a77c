-- statefulCordonPod sets the cordon of a pod: a routing that applies in addition to the reported one, and that reports do
-- not change.
--
-- Needs:   stored
-- Needs:   change
-- Access:  write
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod
-- ARGV[2]: cordon; 0: READY, which lifts it, 1: DENY_NEW, 2: SHUTDOWN
-- ARGV[3]: seconds after which it lifts itself; -1: never
-- Reply:   CORDONED <now> <meta> <report> <burden>: the report with its cordon; the burden is empty if the pod is buried
-- Reply:   ABSENT: the pod has never reported; nothing has changed
-- Repeat:  CORDONED; it lifts itself later

remove(report.member)
if report.set ~= '0' then remove(report.set .. ':' .. entry(report)) end
report.cordon, report.lifts = ARGV[2], '0'
if report.cordon ~= '0' and ARGV[3] ~= '-1' then
  report.lifts = integer(now + ARGV[3] * 1000)
  schedule(meta, '^' .. report.pod, tonumber(report.lifts))
else
  remove('^' .. report.pod)
end
local member = encode(report)
if not report.buried then
  add(-report.pod - 2, member)
  place(report, burden)
else
  add(-BURIED - report.pod - 2, member)
  if report.cordon == '0' then add(DEAD_AGE + report.at, '@' .. report.pod) else remove('@' .. report.pod) end
end
replace(meta)
commit()
return described('CORDONED', meta.member, member)
