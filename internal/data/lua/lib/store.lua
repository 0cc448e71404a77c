-- store.lua has the store's id: <store_id> <store_id_ms> <primaries>, at -2^36. The primaries are the ids of the Redis servers
-- on which the service was seen, separated by commas; at least the last 64.
--
-- Needs:   change

local LARGEST_PRIMARIES = 64

-- read_store returns the member as a table; nil if there is none, false if podlink did not write it.
local function read_store()
  local member = at_score(STORE)
  if not member then return member end
  local id, since, primaries = string.match(member, '^([!-~]+) (%d+) ([!-~]*)$')
  if not id or not whole(since, LARGEST_TIME) then return false end
  return {id = id, since = tonumber(since), primaries = primaries, member = member}
end

-- see adds the primaries that a podlink sees. If one is new, the store may have lost data: the id becomes the given one.
-- Without a store it makes one. The caller must remove the old member after commit, so that the key never disappears.
local function see(store, primaries, id)
  local current, listed = {}, {}
  local known = store and ',' .. store.primaries .. ','
  local changed = not store
  for primary in string.gmatch(primaries, '[^,]+') do
    current[#current + 1], listed[primary] = primary, true
    if known and not string.find(known, ',' .. primary .. ',', 1, true) then changed = true end
  end
  if not changed then return store.id end
  local all = {}
  for primary in string.gmatch(store and store.primaries or '', '[^,]+') do
    if not listed[primary] then all[#all + 1] = primary end
  end
  for i = 1, #current do all[#all + 1] = current[i] end
  local first = math.max(1, math.min(#all - LARGEST_PRIMARIES, #all - #current) + 1)
  remove('') -- There is no such member: commit tries ZREM before it adds another store.
  add(STORE, id .. ' ' .. integer(now) .. ' ' .. table.concat(all, ',', first))
  return id
end
