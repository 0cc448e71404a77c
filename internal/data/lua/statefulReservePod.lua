-- statefulReservePod checks the pod of the current link. If it is not usable, it selects the best pod for a new link and
-- adds a reservation to it. Best is the lowest load + reservations since the pod's report, ties to the lowest pod, among the
-- live READY pods below their capacity.
--
-- Needs:   choice
-- Needs:   ranking
-- Needs:   standing
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
local function reserve(of, burden)
  halve_later(meta, of, burden)
  rank(of, burden + 1)
  commit()
end

-- The pod of the current link, or the known one of a link that the store may have lost.
local otherwise = false
if ARGV[1] ~= '-1' then
  local stays
  stays, otherwise = judge(meta, ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4])
  if stays == nil then return corrupt() end
  if stays then return {'USABLE'} end
elseif ARGV[4] and ARGV[4] ~= '-1' then
  local known, burden = restorable(meta, ARGV[4])
  if known == nil then return corrupt() end
  if known == true then return {'RESTORED', ARGV[4], '0'} end
  if known then
    reserve(parse_entry(entry(known)), burden)
    return {'RESTORED', known.pod, known.at}
  end
end

-- The best pod: the first of the ranking, or of the rankings of the sets that have the labels, that is live and not to be
-- avoided. Entries of silent pods are moved out of the way, a limited number per call.
local STALE_MOST = 64
local avoid, best, least = ARGV[5] or '', nil, nil -- the entry of the best pod, and its burden
local stale, more, foreign = 0, false, false

local _, avoided = string.gsub(avoid, '%d+', '')

-- scan looks for the best pod of a ranking: at as few entries as usually suffice, and at more only if those are of silent pods.
local function scan(low, prefix)
  local from = 1
  for _, most in ipairs({1 + avoided, STALE_MOST}) do
    local found = within(low, low + RANGE - 1, most)
    for i = from, #found, 2 do
      local of = string.sub(found[i], 1, #prefix) == prefix and parse_entry(string.sub(found[i], #prefix + 1))
      if not of then
        foreign = true
        return
      end
      local burden = found[i + 1] - low
      if liveness(meta, of.ttl, of.at, of.heard) ~= LIVE then
        if stale >= STALE_MOST then
          more = true
          return
        end
        stale = stale + 1
        retire(of, burden)
      elseif not string.find(avoid, ',' .. of.pod .. ',', 1, true) then
        if not best or burden < least or burden == least and of.member < best.member then best, least = of, burden end
        return
      end
    end
    if #found < 2 * most then return end
    from = #found + 1
  end
  more = true
end

rankings_of(ARGV[6] or '', scan)
if foreign then return corrupt() end
if best and not more then
  reserve(best, least)
  return {'RESERVED', best.pod, best.at}
end
commit()
if more then return {'AGAIN'} end
if otherwise then return {'USABLE'} end
return {'NONE'}
