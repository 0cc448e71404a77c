-- statefulReleasePod releases a reservation that did not become a link, unless the pod has reported since.
--
-- Needs:   pod
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod, as reserved by statefulReservePod
-- ARGV[2]: heartbeat of the report that counts the reservation
-- Reply:   RELEASED: the pod has one reservation less
-- Reply:   STALE: the pod has reported since, or was removed; nothing has changed
-- Repeat:  RELEASED releases one more, down to none, then STALE: must not be repeated

local report, failure = read(ARGV[1])
if failure then return failure end
if not report or report.heartbeat ~= ARGV[2] or report.given == '0' then return {'STALE'} end
report.given = string.format('%d', report.given - 1)
write(report)
return {'RELEASED'}
