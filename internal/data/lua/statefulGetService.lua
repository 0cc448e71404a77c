-- statefulGetService lists the pods of the service that have reported, in pages, so that a service with many dead pods blocks
-- Redis for a short time only.
--
-- Needs:   pod
-- Access:  read
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: lowest pod of the page
-- ARGV[2]: maximum number of pods that are not buried, and of those that are
-- Reply:   PODS <now> <meta> <next>, then <report> and <burden> for every pod from the lowest to below next; the burden is empty
--          if the pod is buried. next is -1 after the last page; meta is empty if no pod has ever reported.
-- Repeat:  the same

local from, most = ARGV[1], tonumber(ARGV[2])
local meta = read_meta()
if meta == false or not meta and not is_empty() then return corrupt() end

local pages, following = {[0] = page(0, from, most), [BURIED] = page(BURIED, from, most)}, nil
for base, found in pairs(pages) do
  if #found == 2 * most then
    local last = -base - found[#found] - 2
    following = math.min(following or last, last)
  end
end
local reply = {'PODS', integer(now), meta and meta.member or '', following and integer(following + 1) or '-1'}
for base, found in pairs(pages) do
  for i = 1, #found, 2 do
    local report = decode(found[i], true)
    if not report or not meta or tonumber(report.pod) ~= -base - found[i + 1] - 2 then return corrupt() end
    if not following or tonumber(report.pod) <= following then
      local burden = ''
      if base == 0 then
        burden = burden_of(report)
        if not burden then return corrupt() end
        burden = integer(burden)
      end
      reply[#reply + 1] = report.member
      reply[#reply + 1] = burden
    end
  end
end
return reply
