-- fence.lua reads what remains of a removed pod that had instances: <pod> <generation> <sequence> <instance> <predecessor>,
-- at -(2^34 + pod + 2).
--
-- Needs:   pod

local function parse_fence(member)
  local pod, generation, sequence, instance, predecessor = string.match(member, '^(%d+) (%d+) (%d+) ([!-~]+) ([!-~]+)$')
  if not pod or not (whole(generation, LARGEST_FENCED) and whole(sequence, LARGEST_FENCED)) then return false end
  return {
    pod = pod, generation = generation, sequence = sequence, instance = instance, predecessor = predecessor, member = member,
  }
end

-- find_fence returns the fence of the pod; nil if there is none, false if podlink did not write it.
local function find_fence(pod)
  local member = at_score(integer(-FENCE - pod - 2))
  if not member then return member end
  local fence = parse_fence(member)
  return fence and fence.pod == pod and fence
end
