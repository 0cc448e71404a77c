-- statefulGetService lists every pod of the service that has reported.
--
-- Needs:   pod
-- Access:  read
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- Reply:   PODS, then {<pod> <state> <load> <routing> <live> <heartbeat> <ttl>} for every pod, in no order
-- Repeat:  the same

local pods = {'PODS'}
local fields = call('HGETALL', key)
for i = 1, #fields, 2 do
  if fields[i] ~= MARK then
    local found = report(fields[i], fields[i + 1])
    if not found then return corrupt() end
    pods[#pods + 1] = describe(found)
  end
end
return pods
