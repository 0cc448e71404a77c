-- change.lua collects the changes of a script, and makes them at its end.
--
-- Needs:   pod

local gone = {} -- members to remove
local added = {} -- scores and members to add

local function remove(member) gone[#gone + 1] = member end

local function add(score, member)
  added[#added + 1] = integer(score)
  added[#added + 1] = member
end

-- commit makes the changes. The first command changes nothing: it fails if Redis is out of memory or the ACL denies ZADD,
-- while nothing is lost yet. A report of the service or its meta is not removed without being added again, and the store's
-- member remains, so that the key never disappears: a script can't write to a key that it removed while its slot moves.
local function commit()
  if #gone > 0 then
    call('ZADD', key, 'XX', '0', '')
    call('ZREM', key, unpack(gone))
  end
  if #added > 0 then call('ZADD', key, unpack(added)) end
  gone, added = {}, {}
end

-- commit_removal makes the changes of a removal, which must work even if Redis is out of memory: a script may still write
-- after its first write, so ZREM comes first. It returns the error if the ACL denies ZADD; nothing has changed then.
local function commit_removal()
  local denied = redis.pcall('ZADD', key, 'XX', '0', '')
  if type(denied) == 'table' and not string.find(denied.err, 'OOM', 1, true) then return denied end
  call('ZREM', key, unpack(gone))
  if #added > 0 then call('ZADD', key, unpack(added)) end
end

-- replace replaces the meta member if it has changed.
local function replace(meta)
  local member = encode_meta(meta)
  if member == meta.member then return end
  if meta.member then remove(meta.member) end
  add(META, member)
  meta.member = member
end

-- schedule adds a timer.
local function schedule(meta, timer, due)
  add(TIMER + due, timer)
  if meta.due == 0 or due < meta.due then meta.due = due end
end

-- leave removes what depends on the report: its entries, and its timers except that of the cordon.
local function leave(report)
  local place = entry(report)
  remove(report.member)
  remove(place)
  if report.set ~= '0' then remove(report.set .. ':' .. place) end
  if report.ttl == '-1' then remove('~' .. report.pod) end
end

-- place adds the entries of a report that is not buried, and its age.
local function place(report, burden)
  local member, routing = entry(report), effective(report)
  if routing == 0 and (report.capacity == '-1' or burden < tonumber(report.capacity)) then
    add(burden, member)
    if report.set ~= '0' then add((report.set + 1) * RANGE + burden, report.set .. ':' .. member) end
  else
    add(RANGE + burden, member)
  end
  if report.ttl ~= '-1' then
    add(AGE + report.heard + report.ttl * 3000, '@' .. report.pod)
  elseif routing == 0 then
    add(AGELESS, '@' .. report.pod)
  else
    remove('@' .. report.pod)
  end
end
