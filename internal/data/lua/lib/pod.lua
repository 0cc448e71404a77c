-- pod.lua is the common part of all scripts on KEYS[1], the sorted set with everything about the pods of one service. Each
-- kind of member has its own range of scores; docs/data-model.md has the table:
--
--   report    <pod> <load> <routing> <cordon> <lifts> <capacity> <ttl> <at> <heard> <generation> <sequence> <instance>
--             <predecessor> <set> <labels> <address> <state>, at -(pod + 2), or at -(2^33 + pod + 2) if the pod is buried
--   entry     <pod, 10 digits> <load> <capacity> <ttl> <at> <heard> <set>: derived from the report, so that it can be
--             removed. The score is the burden if the pod takes new links, 2^41 + burden if not. If the pod has labels and
--             takes new links, there is a second one, <set>:<entry>, at (set + 1) * 2^41 + burden.
--   meta      <heard> <resumed> <last> <least> <least_at> <due> <counted> <room>, at -1; once made, it is always there
--   @<pod>    when to bury the pod, or when to forget it
--   ~<pod>    when to halve the count of links given out; ^<pod>: when the cordon lifts itself
--
-- Numbers of members stay strings, and are converted only for arithmetic.
--
-- Needs:   now
-- Needs:   value

local key = KEYS[1]

-- The ranges of scores. All are below 2^53, up to which Lua's numbers are exact.
local LOWEST_REPORT, HIGHEST_REPORT, META, BURIED, RANGE = '-2147483649', '-2', '-1', 8589934592, 2199023255552
local AGELESS, AGE, DEAD_AGE, TIMER = 562949953421312, 1125899906842624, 2251799813685248, 4503599627370496
local FENCE, SETS, STORE, LARGEST_FENCED = 17179869184, 34359738368, '-68719476736', '4503599627370495'

local UNNAMED = '*' -- no instance

local function integer(number) return string.format('%d', number) end

local function corrupt() return redis.error_reply('CORRUPT pod') end

-- at_score returns the member with the score, nil if there is none, and false if there are several.
local function at_score(score)
  local found = call('ZRANGEBYSCORE', key, score, score, 'LIMIT', '0', '2')
  if found[2] then return false end
  return found[1]
end

-- within returns up to most members with a score from low to high, each followed by its score.
local function within(low, high, most)
  return call('ZRANGEBYSCORE', key, integer(low), integer(high), 'WITHSCORES', 'LIMIT', '0', most)
end

-- page returns up to most reports from the pod on, in the order of their numbers, each followed by its score.
local function page(base, from, most)
  local low, high = integer(-base - LARGEST_INT32 - 2), integer(-base - from - 2)
  return call('ZREVRANGEBYSCORE', key, high, low, 'WITHSCORES', 'LIMIT', '0', most)
end

-- optional reports whether the text is -1, or a number as podlink writes it.
local function optional(text, most)
  return text == '-1' or string.find(text, '^%d') and whole(text, most)
end

-- decode returns the report as a table, nil if podlink did not write it. It compares numbers as strings, and looks at the state,
-- which may be long, only to see that it is printable ASCII; not at all if the caller changes nothing, as podlink decodes it.
local function decode(member, unchanged)
  local pod, load, routing, cordon, lifts, capacity, ttl, at, heard, generation, sequence, instance, predecessor, set, labels, address,
    begins = string.match(member, '^(%d+) (%d+) ([012]) ([012]) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+) (%d+) '
      .. '([!-~]+) ([!-~]+) (%d+) ([!-~]+) ([!-~]+) ()')
  if not pod or begins > #member or not unchanged and string.find(member, '[^!-~]', begins) then return end
  if not (whole(pod, LARGEST_INT32) and whole(load, LARGEST_INT32) and whole(lifts, LARGEST_TIME) and whole(at, LARGEST_TIME)) then
    return
  end
  if not (whole(heard, LARGEST_TIME) and whole(generation, LARGEST_FENCED) and whole(sequence, LARGEST_FENCED)) then return end
  if not (optional(capacity, LARGEST_INT32) and optional(ttl, LARGEST_INT32) and ttl ~= '0' and whole(set, '64')) then return end
  return {
    pod = pod, load = load, routing = routing, cordon = cordon, lifts = lifts, capacity = capacity, ttl = ttl, at = at,
    heard = heard, generation = generation, sequence = sequence, instance = instance, predecessor = predecessor, set = set,
    labels = labels, address = address, state = string.sub(member, begins), member = member,
  }
end

local function encode(report)
  return table.concat({
    report.pod, report.load, report.routing, report.cordon, report.lifts, report.capacity, report.ttl, report.at,
    report.heard, report.generation, report.sequence, report.instance, report.predecessor, report.set, report.labels,
    report.address, report.state,
  }, ' ')
end

-- is_empty reports whether there is no key. A key without a meta member is none of podlink's.
local function is_empty() return call('ZCOUNT', key, '-inf', '+inf') == 0 end

-- find returns the pod's report; nil if there is none, false if podlink did not write it.
local function find(pod)
  local buried = false
  local member = at_score(integer(-pod - 2))
  if member == nil then
    buried, member = true, at_score(integer(-BURIED - pod - 2))
  end
  if member == nil and not at_score(META) and not is_empty() then return false end
  if not member then return member end
  local report = decode(member)
  if not report or report.pod ~= pod then return false end
  report.buried = buried
  return report
end

-- read_meta returns the meta member as a table; nil if there is none, false if podlink did not write it.
local function read_meta(member)
  if member == nil then member = at_score(META) end
  if not member then return member end
  local heard, resumed, last, least, least_at, due, counted, room =
    string.match(member, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not heard or not (whole(heard, LARGEST_TIME) and whole(resumed, LARGEST_TIME) and whole(last, LARGEST_TIME)) then
    return false
  end
  if not (whole(least, LARGEST_TIME) and whole(least_at, LARGEST_TIME) and whole(due, LARGEST_TIME)) then return false end
  if not (whole(counted, LARGEST_TIME) and whole(room, LARGEST_INT32)) then return false end
  return {
    heard = tonumber(heard), resumed = tonumber(resumed), last = last, least = tonumber(least), least_at = tonumber(least_at),
    due = tonumber(due), counted = tonumber(counted), room = tonumber(room), member = member,
  }
end

local function encode_meta(meta)
  return string.format('%d %d %s %d %d %d %d %d', meta.heard, meta.resumed, meta.last, meta.least, meta.least_at, meta.due,
    meta.counted, meta.room)
end

-- entry returns the member of the ranking for the report.
local function entry(report)
  return string.format('%010d', tonumber(report.pod)) .. ' ' .. report.load .. ' ' .. report.capacity .. ' ' .. report.ttl
    .. ' ' .. report.at .. ' ' .. report.heard .. ' ' .. report.set
end

-- burden_of returns the load + reservations of a report that is not buried, nil if the ranking is not as podlink writes it.
local function burden_of(report)
  local score = tonumber(call('ZSCORE', key, entry(report)) or -1)
  if score >= RANGE then score = score - RANGE end
  if score >= tonumber(report.load) and score < RANGE then return score end
end

-- effective returns the routing that applies: the stricter of the reported one and the cordon.
local function effective(report)
  local cordon = report.cordon
  if report.lifts ~= '0' and now >= tonumber(report.lifts) then cordon = '0' end
  return math.max(report.routing, cordon)
end
