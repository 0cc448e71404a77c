-- statefulSetState stores a pod's report, as of now, and resets its reservation count. A late report, or one of a process
-- that was replaced, changes nothing.
--
-- Needs:   live
-- Needs:   change
-- Needs:   sets
-- Needs:   fence
-- Needs:   store
-- Needs:   aging
-- Access:  write
-- KEYS[1]: podlink:service:<namespace>:<service>
-- ARGV[1]: pod
-- ARGV[2]: load
-- ARGV[3]: routing; 0: READY, 1: DENY_NEW, 2: SHUTDOWN
-- ARGV[4]: capacity: load + reservations at which the pod takes no new links; -1: none
-- ARGV[5]: TTL of the report in seconds; -1: it never expires
-- ARGV[6]: instance, the process that reports; *: it names none
-- ARGV[7]: sequence, the number of the process' report
-- ARGV[8]: generation that the store gave to the process; 0: its first report
-- ARGV[9]: generation of the process that it replaces, with generation 0
-- ARGV[10]: labels, escaped; -: none
-- ARGV[11]: address, escaped; -: none
-- ARGV[12]: state, escaped
-- ARGV[13]: random text, the store's id if it is made now
-- ARGV[14]: ids of the primaries that podlink sees, separated by commas
-- ARGV[15]: maximum number of pods that are not dead; with dead ones, there may be 16 times as many
-- ARGV[16]: ms after which a dead pod is forgotten
-- Reply:   STORED <now> <meta> <report> <burden> <store id> <meta before> <report before> <burden before>: the last three are
--          empty if there was none
-- Reply:   LATE <now> <meta> <report> <burden> <store id> <generation>: it is an old report, or one of a client that names no
--          process while one reports; the report is the stored one, empty if the pod was removed; nothing has changed
-- Reply:   SUPERSEDED <generation> <final>: another process has taken over; final is 1 if that was after this one; nothing has
--          changed
-- Reply:   LIMITED <limit>: there are too many pods or label sets; nothing has changed
-- Repeat:  STORED with a later time, LATE if it has a sequence; LIMITED again, until a second was heard

local pod, instance, sequence, generation = ARGV[1], ARGV[6], ARGV[7], ARGV[8]
local meta, store, before = read_meta(), read_store(), find(pod)
if meta == false or store == false or before == false or not meta ~= not store or not meta and not is_empty() then return corrupt() end
local fence, burden
if not before then
  fence = find_fence(pod)
elseif not before.buried then
  burden = burden_of(before)
end
if fence == false or before and not before.buried and not burden then return corrupt() end

-- Which process reports.
local NOTHING = {generation = '0', sequence = '0', instance = UNNAMED, predecessor = UNNAMED}
local stored = before or fence or NOTHING
local current = tonumber(stored.generation)
local late, superseded, predecessor = false, false, stored.predecessor
if instance == UNNAMED then
  if before and before.instance ~= UNNAMED then
    late = now <= before.at + (before.ttl == '-1' and 90000 or before.ttl * 3000)
  end
  generation, sequence = stored.generation, stored.sequence
elseif generation ~= '0' then
  superseded = tonumber(generation) < current
  late = tonumber(generation) == current and tonumber(sequence) <= tonumber(stored.sequence)
elseif instance == stored.instance then
  generation, late = stored.generation, tonumber(sequence) <= tonumber(stored.sequence)
elseif (tonumber(ARGV[9]) == current or fence and ARGV[9] == '0' and instance ~= stored.predecessor) and current < tonumber(LARGEST_FENCED) then
  generation = integer(math.max(current + 1, time[1] * 1000000 + time[2]))
else
  superseded = true
end
if superseded then
  return {'SUPERSEDED', stored.generation, generation == '0' and instance == stored.predecessor and '1' or '0'}
end
if late then
  return {'LATE', integer(now), meta.member, before and before.member or '', burden and integer(burden) or '', store.id, stored.generation}
end
if instance ~= UNNAMED and instance ~= stored.instance and stored.instance ~= UNNAMED then predecessor = stored.instance end

-- room reports whether one more pod may be not dead. Only a service at its limit counts its dead ones, and once for each
-- second that is heard.
local function room(most)
  local full = call('ZCOUNT', key, LOWEST_REPORT, HIGHEST_REPORT) >= most
  if full and meta.heard >= meta.counted then
    local found, alive = call('ZRANGEBYSCORE', key, '0', integer(2 * RANGE - 1)), 0
    for i = 1, #found do
      local ttl, at, heard = string.match(found[i], '^%d+ %d+ %-?%d+ (%-?%d+) (%d+) (%d+) %d+$')
      if ttl and liveness(meta, ttl, at, heard) ~= DEAD then alive = alive + 1 end
    end
    meta.counted, meta.room = meta.heard + 1000, math.max(0, most - alive)
  end
  if full and meta.room == 0 then
    replace(meta)
    commit()
    return false
  end
  meta.room = math.max(0, meta.room - 1)
  return true
end

local meta_before = meta and meta.member or ''
if meta then
  local most = tonumber(ARGV[15])
  if not before or before.buried or liveness(meta, before.ttl, before.at, before.heard) == DEAD then
    if not room(most) then return {'LIMITED', 'limits.max_pods'} end
  end
  if not before and not fence then
    local all = call('ZCOUNT', key, LOWEST_REPORT, HIGHEST_REPORT)
      + call('ZCOUNT', key, integer(-FENCE - LARGEST_INT32 - 2), integer(-BURIED - 2))
    if all >= 16 * most and not forget_oldest() then return {'LIMITED', 'limits.max_pods'} end
  end
end

-- The set of its labels.
local labels, set = ARGV[10], '0'
if before and before.set ~= '0' and labels == before.labels then
  set = before.set
else
  if before and not leave_set(before.set) then return corrupt() end
  if labels ~= '-' then set = join_set(labels) end
  if set == false then return corrupt() end
  if not set then return {'LIMITED', 'label_sets'} end
end

-- The time that was heard.
local ttl = ARGV[5] == '-1' and 30000 or ARGV[5] * 1000
if not meta then
  meta = {heard = 0, resumed = 0, least = ttl, least_at = 0, due = 0, counted = 0, room = 0}
else
  local step, gap = math.max(500, meta.least / 2), now - meta.last
  meta.heard = meta.heard + math.min(math.max(0, gap), step)
  if gap > step then meta.resumed = meta.heard end
  if ttl <= meta.least or meta.heard - meta.least_at > 3 * meta.least then
    -- It grows twofold at most, so that it is never far above the smallest ttl of the pods that report: one report with a long
    -- ttl would make an outage count as heard.
    meta.least, meta.least_at = math.min(ttl, 2 * meta.least), meta.heard
  end
end
meta.last = integer(now)

local report = {
  pod = pod, load = ARGV[2], routing = ARGV[3], cordon = '0', lifts = '0', capacity = ARGV[4], ttl = ARGV[5],
  at = meta.last, heard = integer(meta.heard), generation = generation, sequence = sequence, instance = instance,
  predecessor = predecessor, set = set, labels = labels, address = ARGV[11], state = ARGV[12],
}
if before then
  leave(before)
  if before.lifts ~= '0' and now >= tonumber(before.lifts) then
    remove('^' .. pod)
  else
    report.cordon, report.lifts = before.cordon, before.lifts
  end
elseif fence then
  remove(fence.member)
end
local member = encode(report)
add(-pod - 2, member)
place(report, tonumber(report.load))
age(meta, pod, ARGV[16])
replace_sets()
replace(meta)
local id = see(store, ARGV[14], ARGV[13])
commit()
if store and id ~= store.id then call('ZREM', key, store.member) end
return {
  'STORED', integer(now), meta.member, member, report.load, id, meta_before, before and before.member or '',
  burden and integer(burden) or '',
}
