-- standing.lua judges the pod of a link that there is, or was.
--
-- Needs:   live
-- Needs:   store
-- Needs:   fence

-- judge judges the pod of the current link. It returns whether the link stays at once, and whether it stays if no other pod is
-- usable; nil if podlink did not write what it read. over says that the pod counts as dead if it is in doubt while a live READY
-- pod of the service never expires.
local function judge(meta, pod, leave, over, known)
  local linked = find(pod)
  if linked == false then return nil end
  local alive = linked and liveness(meta, linked.ttl, linked.at, linked.heard) or DEAD
  if not linked and known == pod and not leave then
    -- A link that another caller put back, to a pod that has not reported yet: in doubt as long as links are put back.
    local store = read_store()
    if not store then return nil end
    if now - store.since < 2 * meta.least and find_fence(pod) == nil then return true end
  end
  local doubtful = alive == IN_DOUBT
  local usable = linked and alive ~= DEAD and effective(linked) < 2
  if doubtful and over and #within(AGELESS, AGELESS, '1') > 0 then usable = false end
  return usable and not leave or false, usable or doubtful
end

-- restorable judges the known pod of a link that the store may have lost. It returns the pod's report and its burden if the link
-- is to be put back; true if it is, and the pod has not reported; false if not; nil if podlink did not write what it read.
local function restorable(meta, pod)
  local store, known = read_store(), find(pod)
  local fence = not known and find_fence(pod)
  local burden = known and not known.buried and burden_of(known)
  if not store or known == false or fence == false and not known or known and not known.buried and not burden then
    return nil
  end
  local ttl = meta.least
  if known then ttl = known.ttl == '-1' and 30000 or known.ttl * 1000 end
  if now - store.since >= 2 * ttl then return false end
  if not known then return not fence end
  if burden and effective(known) == 0 and liveness(meta, known.ttl, known.at, known.heard) == LIVE then return known, burden end
  return false
end
