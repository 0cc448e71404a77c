-- stored.lua reads the report of the pod ARGV[1]. It ends the script if there is none, or if podlink did not write it.
--
-- Needs:   pod

local report = find(ARGV[1])
if report == false then return corrupt() end
if not report then return {'ABSENT'} end
local meta, burden = read_meta(), not report.buried and burden_of(report) -- no burden if the pod is buried
if not meta or not report.buried and not burden then return corrupt() end

-- described returns the report as it is in replies; replies give the burden of a buried pod as an empty text.
local function described(status, numbers, member)
  return {status, integer(now), numbers, member, burden and integer(burden) or ''}
end
