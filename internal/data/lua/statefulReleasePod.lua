-- statefulReleasePod releases reservations that did not become links, unless their pods have reported since.
--
-- Needs:   change
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod, as reserved by statefulReservePod
-- ARGV[2]: time of the report that counts the reservation; further reservations follow, each as a pod and a time
-- Reply:   RELEASED: one of the pods or more have fewer reservations
-- Reply:   STALE: all pods have reported since, or were removed; nothing has changed
-- Repeat:  RELEASED releases as many more, down to none, then STALE: must not be repeated

local reports = {} -- by pod

-- release releases a reservation. It returns false if podlink did not write what it read.
local function release(pod, at)
  local report = reports[pod]
  if report == nil then
    report = find(pod)
    if report == false then return false end
    report = report or {buried = true}
    reports[pod] = report
  end
  if report.buried or report.at ~= at then return true end
  report.burden = report.burden or burden_of(report)
  if not report.burden then return false end
  if report.burden > tonumber(report.load) then
    report.burden, report.released = report.burden - 1, true
  end
  return true
end

if not release(ARGV[1], ARGV[2]) then return corrupt() end
for i = 3, #ARGV, 2 do
  if not release(ARGV[i], ARGV[i + 1]) then return corrupt() end
end
local released = false
for _, report in pairs(reports) do
  if report.released then
    place(report, report.burden)
    released = true
  end
end
commit()
return released and {'RELEASED'} or {'STALE'}
