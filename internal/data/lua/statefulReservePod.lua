-- statefulReservePod judges the pod of a standing link and, if that can't be used, chooses the best pod for a new one
-- and counts a link as given to it. Best is the lowest load + links given out since the pod's report, ties to the
-- lowest pod.
--
-- Needs:   pod
-- Access:  write
-- Confirm: no, a count that is lost makes a pod look less busy until its next report, and nothing else
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod of the standing link; -1: there is none
-- Reply:   USABLE: the standing link's pod is live and READY or DENY_NEW; nothing has changed
-- Reply:   UNKNOWN: no pod of the service has ever reported; nothing has changed
-- Reply:   NONE: no pod is live and READY; nothing has changed
-- Reply:   RESERVED <pod> <heartbeat>: the best pod, and the heartbeat of its report
-- Repeat:  RESERVED counts one more link

if ARGV[1] ~= '-1' then
  local standing, failure = read(ARGV[1])
  if failure then return failure end
  if standing and live(standing) and (standing.routing == READY or standing.routing == DENY_NEW) then
    return {'USABLE'}
  end
end

local reports, known, failure = all()
if failure then return failure end
if not known then return {'UNKNOWN'} end

local best, least, lowest
for _, report in ipairs(reports) do
  if report.routing == READY and live(report) then
    local burden, pod = report.load + report.given, tonumber(report.pod)
    if not best or burden < least or (burden == least and pod < lowest) then
      best, least, lowest = report, burden, pod
    end
  end
end
if not best then return {'NONE'} end

best.given = string.format('%d', best.given + 1)
write(best)
return {'RESERVED', best.pod, best.heartbeat}
