-- statefulReleasePod gives a reservation back that did not become a link, unless the pod has reported since.
--
-- Needs:   pod
-- Access:  write
-- Confirm: no, a count that is lost makes a pod look less busy until its next report, and nothing else
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod, as reserved by statefulReservePod
-- ARGV[2]: heartbeat of the report that counts the reservation
-- Reply:   RELEASED: the pod has been given one link less
-- Reply:   STALE: the pod has reported since, or is gone; nothing has changed
-- Repeat:  RELEASED gives back one more, down to none, then STALE: not to be repeated

local report, failure = read(ARGV[1])
if failure then return failure end
if not report or report.heartbeat ~= ARGV[2] or report.given == '0' then return {'STALE'} end
report.given = string.format('%d', report.given - 1)
write(report)
return {'RELEASED'}
