-- statefulGetService lists every pod of the service that has reported.
--
-- Needs:   pod
-- Access:  read
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- Reply:   PODS, then {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>} for every pod, in no order
-- Repeat:  the same

local reports, _, failure = all()
if failure then return failure end
local pods = {'PODS'}
for _, report in ipairs(reports) do
  pods[#pods + 1] = describe(report)
end
return pods
