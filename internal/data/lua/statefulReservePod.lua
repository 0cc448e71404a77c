-- statefulReservePod checks the pod of the current link. If it is not usable, it selects the best pod for a new link and
-- adds a reservation to it. Best is the lowest load + reservations since the pod's report, ties to the lowest pod.
--
-- Needs:   pod
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod of the current link; -1: there is none
-- Reply:   USABLE: the current link's pod is live and READY or DENY_NEW; nothing has changed
-- Reply:   UNKNOWN: no pod of the service has ever reported; nothing has changed
-- Reply:   NONE: no pod is live and READY; nothing has changed
-- Reply:   RESERVED <pod> <heartbeat>: the best pod, and the heartbeat of its report
-- Repeat:  RESERVED adds another reservation

if ARGV[1] ~= '-1' then
  local linked, failure = read(ARGV[1])
  if failure then return failure end
  if linked and live(linked.ttl, linked.heartbeat) and (linked.routing == READY or linked.routing == DENY_NEW) then
    return {'USABLE'}
  end
end

local fields = call('HGETALL', key)
if #fields == 0 then return {'UNKNOWN'} end

local best, least, lowest -- index of the best pod's field, its load + reservations, and its number
for i = 1, #fields, 2 do
  if fields[i] ~= MARK then
    local load, given, routing, ttl, heartbeat = decode(fields[i], fields[i + 1])
    if not load then return corrupt() end
    if routing == READY and live(ttl, heartbeat) then
      local burden, pod = load + given, tonumber(fields[i])
      if not best or burden < least or (burden == least and pod < lowest) then
        best, least, lowest = i, burden, pod
      end
    end
  end
end
if not best then return {'NONE'} end

local chosen = report(fields[best], fields[best + 1])
chosen.given = string.format('%d', chosen.given + 1)
write(chosen)
return {'RESERVED', chosen.pod, chosen.heartbeat}
