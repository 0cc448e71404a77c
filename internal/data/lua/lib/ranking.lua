-- ranking.lua reads the ranking of the pods that take new links, and changes the places of entries in it.
--
-- Needs:   timers
-- Needs:   live

-- parse_entry returns an entry as a table; nil if podlink did not write it.
local function parse_entry(member)
  local pod, load, capacity, ttl, at, heard, set = string.match(member, '^0*(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)$')
  if not pod then return end
  return {pod = pod, load = load, capacity = capacity, ttl = ttl, at = at, heard = heard, set = set, member = member}
end

-- takes_more reports whether a pod with the burden is below its capacity.
local function takes_more(of, burden) return of.capacity == '-1' or burden < tonumber(of.capacity) end

-- rank gives an entry the place of its burden, after reservations.
local function rank(of, burden)
  if takes_more(of, burden) then
    add(burden, of.member)
    if of.set ~= '0' then add((of.set + 1) * RANGE + burden, of.set .. ':' .. of.member) end
  else
    add(RANGE + burden, of.member)
    if of.set ~= '0' then remove(of.set .. ':' .. of.member) end
  end
end

-- retire moves the entry of a silent pod out of the way.
local function retire(of, burden)
  add(RANGE + burden, of.member)
  if of.set ~= '0' then remove(of.set .. ':' .. of.member) end
end

-- halve_later sees to it that the links given out to a pod whose reports never expire are counted for a while only, once there
-- are any.
local function halve_later(meta, of, burden)
  if of.ttl == '-1' and burden == tonumber(of.load) then
    schedule(meta, '~' .. of.pod, now + MINUTE)
    replace(meta)
  end
end

-- entries reads up to most entries of the ranking that begins at the score low, after the first ones; each followed by its score.
local function entries(low, first, most)
  return call('ZRANGEBYSCORE', key, integer(low), integer(low + RANGE - 1), 'WITHSCORES', 'LIMIT', integer(first), integer(most))
end

-- rankings_of calls go with the lowest score and the prefix of each ranking of pods that have the labels, written as
-- &name=value& and separated by spaces; with the ranking of all pods if there are none.
local function rankings_of(labels, go)
  if labels == '' then return go(0, '') end
  local found = within(-SETS - 64, -SETS - 1, '65')
  for i = 1, #found, 2 do
    local holds, its = true, string.match(found[i], '^%d+ %d+ (.+)$') or ''
    for pair in string.gmatch(labels, '[^ ]+') do
      holds = holds and string.find(its, pair, 1, true)
    end
    local number = -SETS - found[i + 1]
    if holds then go((number + 1) * RANGE, integer(number) .. ':') end
  end
end
