-- statefulReservePod checks the pod of the current link. If it is not usable, it selects the best pod for a new link and
-- adds a reservation to it. Best is the lowest load + reservations since the pod's report, ties to the lowest pod, among the
-- live READY pods below their capacity.
--
-- Needs:   choice
-- Needs:   live
-- Needs:   change
-- Needs:   timers
-- Needs:   store
-- Needs:   fence
-- Access:  write
-- Confirm: no, a lost count only makes a pod look less busy until its next report
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod of the current link; -1: there is none
-- ARGV[2]: 1: leave that pod if another one is usable; 0 or absent, with all that follow: no
-- ARGV[3]: 1: that pod counts as dead if it is in doubt while a live READY pod of the service never expires
-- ARGV[4]: pod that the caller knows from a lost link; -1: none
-- ARGV[5]: pods to avoid, each between commas: ,3,7,
-- ARGV[6]: labels that the pod must have, as &name=value& separated by spaces
-- Reply:   USABLE: the current link's pod is live or in doubt and READY or DENY_NEW, or in doubt while no other is usable, or
--          is the known one and has not reported yet after a loss
-- Reply:   UNKNOWN: no pod of the service has ever reported
-- Reply:   NONE: no pod is usable
-- Reply:   RESERVED <pod> <at>: the best pod, and the time of its report
-- Reply:   RESTORED <pod> <at>: the known pod, and the time of its report; 0: it has not reported, and nothing is counted
-- Reply:   AGAIN: many pods were found to be silent, and their entries moved out of the way: call again
-- Repeat:  RESERVED and RESTORED add another reservation; AGAIN moves more, up to NONE

if not head[1] and is_empty() then return {'UNKNOWN'} end
local meta = head[2] == META and read_meta(head[1])
if not meta then return corrupt() end
if meta.due ~= 0 and now >= meta.due then run_timers(meta) end

-- reserve adds a reservation to the pod of an entry.
local function reserve(pod, member, load, capacity, ttl, set, burden)
  if ttl == '-1' and burden == tonumber(load) then
    schedule(meta, '~' .. pod, now + MINUTE)
    replace(meta)
  end
  burden = burden + 1
  if capacity == '-1' or burden < tonumber(capacity) then
    add(burden, member)
    if set ~= '0' then add((set + 1) * RANGE + burden, set .. ':' .. member) end
  else
    add(RANGE + burden, member)
    if set ~= '0' then remove(set .. ':' .. member) end
  end
  commit()
end

-- The pod of the current link.
local usable, doubtful = false, false
if ARGV[1] ~= '-1' then
  local linked = find(ARGV[1])
  if linked == false then return corrupt() end
  local alive = linked and liveness(meta, linked.ttl, linked.at, linked.heard) or DEAD
  if not linked and ARGV[4] == ARGV[1] and ARGV[2] ~= '1' then
    -- A link that another caller put back, to a pod that has not reported yet: in doubt as long as links are put back.
    local store = read_store()
    if not store then return corrupt() end
    if now - store.since < 2 * meta.least and find_fence(ARGV[1]) == nil then return {'USABLE'} end
  end
  doubtful = alive == IN_DOUBT
  usable = linked and alive ~= DEAD and effective(linked) < 2
  if doubtful and ARGV[3] == '1' and #within(AGELESS, AGELESS, '1') > 0 then usable = false end
  if usable and ARGV[2] ~= '1' then return {'USABLE'} end
elseif ARGV[4] and ARGV[4] ~= '-1' then
  -- The known pod of a link that the store may have lost.
  local store, known = read_store(), find(ARGV[4])
  local fence = not known and find_fence(ARGV[4])
  local burden = known and not known.buried and burden_of(known)
  if not store or known == false or fence == false and not known or known and not known.buried and not burden then
    return corrupt()
  end
  local ttl = meta.least
  if known then ttl = known.ttl == '-1' and 30000 or known.ttl * 1000 end
  if now - store.since < 2 * ttl then
    if known and burden and effective(known) == 0 and liveness(meta, known.ttl, known.at, known.heard) == LIVE then
      reserve(known.pod, entry(known), known.load, known.capacity, known.ttl, known.set, burden)
      return {'RESTORED', known.pod, known.at}
    elseif not known and not fence then
      return {'RESTORED', ARGV[4], '0'}
    end
  end
end

-- The best pod: the first of the ranking, or of the rankings of the sets that have the labels, that is live and not to be
-- avoided. Entries of silent pods are moved out of the way, a limited number per call.
local STALE_MOST = 64
local avoid, best, least = ARGV[5] or '', nil, nil -- the best pod as in its entry, and its burden
local stale, more, foreign = 0, false, false

local _, avoided = string.gsub(avoid, '%d+', '')

-- scan looks for the best pod of a ranking: at as few entries as usually suffice, and at more only if those are of silent pods.
local function scan(low, prefix)
  local from = 1
  for _, most in ipairs({1 + avoided, STALE_MOST}) do
    local found = within(low, low + RANGE - 1, most)
    for i = from, #found, 2 do
      local member = string.sub(found[i], #prefix + 1)
      local pod, load, capacity, ttl, at, heard, set =
        string.match(member, '^0*(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)$')
      if not pod or string.sub(found[i], 1, #prefix) ~= prefix then
        foreign = true
        return
      end
      local burden = found[i + 1] - low
      if liveness(meta, ttl, at, heard) ~= LIVE then
        if stale >= STALE_MOST then
          more = true
          return
        end
        stale = stale + 1
        add(RANGE + burden, member)
        if set ~= '0' then remove(set .. ':' .. member) end
      elseif not string.find(avoid, ',' .. pod .. ',', 1, true) then
        if not best or burden < least or burden == least and member < best.member then
          best = {pod = pod, member = member, load = load, capacity = capacity, ttl = ttl, at = at, set = set}
          least = burden
        end
        return
      end
    end
    if #found < 2 * most then return end
    from = #found + 1
  end
  more = true
end

if not ARGV[6] or ARGV[6] == '' then
  scan(0, '')
else
  local found = within(-SETS - 64, -SETS - 1, '65')
  for i = 1, #found, 2 do
    local holds = true
    local labels = string.match(found[i], '^%d+ %d+ (.+)$') or ''
    for pair in string.gmatch(ARGV[6], '[^ ]+') do
      holds = holds and string.find(labels, pair, 1, true)
    end
    local number = -SETS - found[i + 1]
    if holds then scan((number + 1) * RANGE, integer(number) .. ':') end
  end
end
if foreign then return corrupt() end
if best and not more then
  reserve(best.pod, best.member, best.load, best.capacity, best.ttl, best.set, least)
  return {'RESERVED', best.pod, best.at}
end
commit()
if more then return {'AGAIN'} end
if usable or doubtful then return {'USABLE'} end
return {'NONE'}
