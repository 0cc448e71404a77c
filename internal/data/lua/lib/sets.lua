-- sets.lua counts the pods of each set of labels. A set is the member <number> <pods> <labels> at -2^35 - number; labels are
-- &name=value&name=value&, sorted and escaped.
--
-- Needs:   change

local LARGEST_SET = 64

local sets = {} -- the sets that were read, by number; false if podlink did not write it

local function parse_set(number, member)
  local its_number, pods, labels = string.match(member, '^(%d+) ([1-9]%d*) ([!-~]+)$')
  if its_number ~= integer(number) or not whole(pods, LARGEST_INT32) then return false end
  return {pods = tonumber(pods), labels = labels, member = member}
end

-- leave_set takes a pod out of the set. It returns false if podlink did not write the set.
local function leave_set(number)
  if number == '0' then return true end
  number = tonumber(number)
  if sets[number] == nil then
    local member = at_score(integer(-SETS - number))
    sets[number] = member and parse_set(number, member) or false
  end
  if not sets[number] then return false end
  sets[number].pods = sets[number].pods - 1
  return true
end

-- join_set puts a pod into the set with the labels. It returns the number; nil if there are too many sets, false if podlink
-- did not write one of them.
local function join_set(labels)
  local found = within(-SETS - LARGEST_SET, -SETS - 1, '65')
  for i = 1, #found, 2 do
    local number = -SETS - found[i + 1]
    if sets[number] == nil then sets[number] = parse_set(number, found[i]) end
    if not sets[number] then return false end
  end
  local free
  for number = LARGEST_SET, 1, -1 do
    local set = sets[number]
    if set and set.labels == labels then
      set.pods = set.pods + 1
      return integer(number)
    end
    if not set or set.pods == 0 then free = number end
  end
  if not free then return nil end
  sets[free] = {pods = 1, labels = labels, member = sets[free] and sets[free].member}
  return integer(free)
end

-- replace_sets replaces the members of the sets that have changed.
local function replace_sets()
  for number, set in pairs(sets) do
    local member = set and integer(number) .. ' ' .. integer(set.pods) .. ' ' .. set.labels
    if set and member ~= set.member then
      if set.member then remove(set.member) end
      if set.pods > 0 then add(-SETS - number, member) end
    end
  end
end
