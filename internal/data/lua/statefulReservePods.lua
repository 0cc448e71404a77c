-- statefulReservePods does for many links what statefulReservePod does for one, as if it were called for each of them, one after
-- the other. Its cost grows with the number of links, and with the pods that it chooses, not with the number of pods.
--
-- Needs:   ranking
-- Needs:   standing
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: labels that the pods must have, as &name=value& separated by spaces; empty: none. The links follow, each as the first
--          five arguments of statefulReservePod separated by spaces, or as only the first if the others are absent
-- Reply:   UNKNOWN: no pod of the service has ever reported
-- Reply:   CHOSEN <result> ...: for each link what statefulReservePod replies, as <status> <pod> <at>; -1 0 without a pod. If many
--          pods were found to be silent, the last links have no result: call again for them
-- Repeat:  CHOSEN adds other reservations

local meta = read_meta()
if meta == nil and is_empty() then return {'UNKNOWN'} end
if not meta then return corrupt() end
if meta.due ~= 0 and now >= meta.due then run_timers(meta) end

-- A candidate is the entry of a live pod with its burden, that before the script and that after the reservations so far.
local candidates = {} -- by pod
local ranked, first, last = {}, 1, 0 -- those that were read from a ranking and are below their capacity, the best at first

local function candidate(of, burden)
  local one = candidates[of.pod]
  if not one then
    one = of
    one.before, one.burden = burden, burden
    candidates[of.pod] = one
  end
  return one
end

-- precedes reports whether a candidate is better than another one, given their burdens.
local function precedes(burden, one, other_burden, other)
  return burden < other_burden or burden == other_burden and one.member < other.member
end

-- insert puts a candidate at its place in ranked. Usually it is the last: it was the best, and has one reservation more.
local function insert(one)
  if not takes_more(one, one.burden) then return end
  local at = last + 1
  while at > first and precedes(one.burden, one, ranked[at - 1].burden, ranked[at - 1]) do
    ranked[at] = ranked[at - 1]
    at = at - 1
  end
  ranked[at] = one
  last = last + 1
end

-- give adds a reservation to a candidate. at is its place in ranked, nil if it is not known.
local function give(one, at)
  for i = at or first, one.ranked and last or 0 do
    if ranked[i] == one then
      for before = i, first + 1, -1 do ranked[before] = ranked[before - 1] end
      first = first + 1
      break
    end
  end
  one.burden = one.burden + 1
  if one.ranked then insert(one) end
end

-- The rankings are read page by page, as far as it takes. Each has a head, the best candidate that is not in ranked yet, as far as
-- the place in the ranking shows. Entries of silent pods are moved out of the way, a limited number per call.
local STALE_MOST = 64
local rankings, stale, more, foreign = nil, 0, false, false -- the rankings are read when the first pod has to be chosen

-- advance moves on to the next head.
local function advance(ranking)
  ranking.head = nil
  while not (more or foreign) do
    if ranking.i > #ranking.page then
      if ranking.last then return end
      ranking.page = entries(ranking.low, ranking.from, ranking.most)
      ranking.last = #ranking.page < 2 * ranking.most
      ranking.i, ranking.from, ranking.most = 1, ranking.from + ranking.most, math.min(2 * ranking.most, 128)
      if #ranking.page == 0 then return end
    end
    local member, burden = ranking.page[ranking.i], ranking.page[ranking.i + 1] - ranking.low
    ranking.i = ranking.i + 2
    local of = string.sub(member, 1, #ranking.prefix) == ranking.prefix and parse_entry(string.sub(member, #ranking.prefix + 1))
    if not of then
      foreign = true
    elseif liveness(meta, of.ttl, of.at, of.heard) == LIVE then
      ranking.head, ranking.place = candidate(of, burden), burden
      return
    elseif stale >= STALE_MOST then
      more = true
    else
      stale = stale + 1
      retire(of, burden)
    end
  end
end

local function begin(low, prefix)
  local ranking = {low = low, prefix = prefix, page = {}, i = 1, from = 0, most = ARGV[1] == '' and #ARGV or 4}
  rankings[#rankings + 1] = ranking
  advance(ranking)
end

-- best returns the best candidate that is not to be avoided, and its place in ranked; nil if there is none, or if more or foreign
-- is set.
local function best(avoid)
  if not rankings then
    rankings = {}
    rankings_of(ARGV[1], begin)
  end
  while not (more or foreign) do
    local chosen, at
    for i = first, last do
      if avoid == '' or not string.find(avoid, ',' .. ranked[i].pod .. ',', 1, true) then
        chosen, at = ranked[i], i
        break
      end
    end
    local nearest
    for i = 1, #rankings do
      local one = rankings[i]
      if one.head and (not nearest or precedes(one.place, one.head, nearest.place, nearest.head)) then nearest = one end
    end
    if not nearest or chosen and precedes(chosen.burden, chosen, nearest.place, nearest.head) then return chosen, at end
    nearest.head.ranked = true
    insert(nearest.head)
    advance(nearest)
  end
end

local judged = {} -- what judge has returned, by its arguments

-- choose returns the result for a link; nil if podlink did not write what it read, or if more or foreign is set.
local function choose(linked, leave, over, known, avoid)
  local otherwise = false
  if linked ~= '-1' then
    local wish = linked .. ' ' .. leave .. ' ' .. over .. ' ' .. (known == linked and known or '')
    if not judged[wish] then judged[wish] = {judge(meta, linked, leave == '1', over == '1', known)} end
    local stays = judged[wish][1]
    otherwise = judged[wish][2]
    if stays == nil then return end
    if stays then return 'USABLE -1 0' end
  elseif known ~= '' and known ~= '-1' then
    local pod, burden = restorable(meta, known)
    if pod == nil then return end
    if pod == true then return 'RESTORED ' .. known .. ' 0' end
    if pod then
      give(candidate(parse_entry(entry(pod)), burden))
      return 'RESTORED ' .. pod.pod .. ' ' .. pod.at
    end
  end
  local one, at = best(avoid)
  if more or foreign then return end
  if one then
    give(one, at)
    return 'RESERVED ' .. one.pod .. ' ' .. one.at
  end
  return otherwise and 'USABLE -1 0' or 'NONE -1 0'
end

local results = {'CHOSEN'}
for i = 2, #ARGV do
  local linked, leave, over, known, avoid = string.match(ARGV[i], '^(%-?%d+) ?([01]?) ?([01]?) ?(%-?%d*) ?([%d,]*)$')
  local result = linked and choose(linked, leave, over, known, avoid)
  if not result then
    if more then break end
    return corrupt()
  end
  results[#results + 1] = result
end
for _, one in pairs(candidates) do
  if one.burden > one.before then
    halve_later(meta, one, one.before)
    rank(one, one.burden)
  end
end
commit()
return results
