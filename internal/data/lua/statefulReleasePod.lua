-- statefulReleasePod releases a reservation that did not become a link, unless the pod has reported since.
--
-- Needs:   change
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod, as reserved by statefulReservePod
-- ARGV[2]: time of the report that counts the reservation
-- Reply:   RELEASED: the pod has one reservation less
-- Reply:   STALE: the pod has reported since, or was removed; nothing has changed
-- Repeat:  RELEASED releases one more, down to none, then STALE: must not be repeated

local report = find(ARGV[1])
if report == false then return corrupt() end
if not report or report.buried or report.at ~= ARGV[2] then return {'STALE'} end
local burden = burden_of(report)
if not burden then return corrupt() end
if burden == tonumber(report.load) then return {'STALE'} end
place(report, burden - 1)
commit()
return {'RELEASED'}
