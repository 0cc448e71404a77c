-- statefulRemoveState removes a pod's report and cordon. If the pod had instances, a fence remains, so that late reports of
-- them change nothing. The meta member remains: the service has reported.
--
-- Needs:   stored
-- Needs:   live
-- Needs:   change
-- Needs:   sets
-- Access:  write
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   REMOVED <now> <meta> <report> <burden>: the removed report; the burden is empty if the pod was buried
-- Reply:   ABSENT: there was none; nothing has changed
-- Repeat:  ABSENT

if not leave_set(report.set) then return corrupt() end

leave(report)
remove('@' .. report.pod)
remove('^' .. report.pod)
replace_sets()
if meta.heard < meta.counted and liveness(meta, report.ttl, report.at, report.heard) ~= DEAD then meta.room = meta.room + 1 end
if report.generation ~= '0' then
  add(-FENCE - report.pod - 2, table.concat({report.pod, report.generation, report.sequence, report.instance, report.predecessor}, ' '))
  add(DEAD_AGE + now, '@' .. report.pod)
end
local member = meta.member
replace(meta)
local failure = commit_removal()
if failure then return failure end
return described('REMOVED', member, report.member)
