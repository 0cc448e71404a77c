-- aging.lua buries the pods that are dead for certain, whatever is heard later, and forgets those that are buried for long.
-- Buried pods cost a choice of a pod and a plain view of the pods nothing.
--
-- Needs:   change
-- Needs:   sets
-- Needs:   fence

-- forget removes a buried pod or a fence. It returns false if there is none that podlink wrote.
local function forget(pod)
  local member, ours = at_score(integer(-BURIED - pod - 2)), nil
  if member then
    ours = decode(member)
  else
    member = at_score(integer(-FENCE - pod - 2))
    ours = member and parse_fence(member)
  end
  if not ours or ours.pod ~= pod then return false end
  remove(member)
  remove('@' .. pod)
  remove('^' .. pod)
  return true
end

-- bury moves a report out of the way. A cordoned pod gets no age: it is not forgotten.
local function bury(pod)
  local report = find(pod)
  if not report or report.buried or not leave_set(report.set) then return end
  leave(report)
  report.set = '0'
  add(-BURIED - pod - 2, encode(report))
  if report.cordon ~= '0' then remove('@' .. pod) else add(DEAD_AGE + report.at, '@' .. pod) end
end

-- age buries and forgets the pods that are due, except one.
local function age(meta, except, forget_after)
  local due = within(AGE, AGE + meta.heard - 1, '10')
  for i = 1, #due, 2 do
    local pod = string.match(due[i], '^@(%d+)$')
    if pod and pod ~= except then bury(pod) end
  end
  due = within(DEAD_AGE, DEAD_AGE + now - forget_after - 1, '10')
  for i = 1, #due, 2 do
    local pod = string.match(due[i], '^@(%d+)$')
    if pod and pod ~= except then forget(pod) end
  end
end

-- forget_oldest forgets the pod that is dead longest and not cordoned. It returns false if there is none.
local function forget_oldest()
  local oldest = within(DEAD_AGE, TIMER - 1, '1')
  local pod = string.match(oldest[1] or '', '^@(%d+)$')
  return pod and forget(pod)
end
