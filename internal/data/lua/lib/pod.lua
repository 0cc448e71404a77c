-- pod.lua is the common part of all scripts on KEYS[1], the hash of all pods of one service: pod ->
-- "<load> <given> <routing> <ttl> <heartbeat> <state>". given is the number of reservations since the report, routing is
-- 0 READY, 1 DENY_NEW or 2 SHUTDOWN, ttl is in seconds (-1: the report never expires), and heartbeat is the Unix time of
-- the report in ms. The field "reported" marks a service whose last pod was removed as one that has reported.
--
-- Needs:   value
-- Needs:   clock
-- Needs:   text

local READY, DENY_NEW = '0', '1'
local MARK = 'reported'

local key = KEYS[1]

local now -- Unix time in ms, read once
local function now_ms()
  now = now or tonumber(string.sub(clock(), 1, -4))
  return now
end

-- decode returns the load, given, routing, ttl, heartbeat and state of a field, nothing if podlink did not write the field.
-- It returns no table, because selecting a pod decodes all pods and keeps one.
local function decode(pod, value)
  if not string.find(pod, '^%d+$') or not whole(pod, LARGEST_INT32) then return end
  local load, given, routing, ttl, heartbeat, state =
    string.match(value, '^(%d+) (%d+) ([012]) (%-?%d+) (%d+) (.+)$')
  if not load or not is_text(state) then return end
  if not (whole(load, LARGEST_INT32) and whole(given, LARGEST_COUNTED) and whole(heartbeat, LARGEST)) then return end
  if ttl ~= '-1' and (string.find(ttl, '^[-0]') or not whole(ttl, LARGEST_INT32)) then return end
  return load, given, routing, ttl, heartbeat, state
end

local function corrupt()
  return redis.error_reply('CORRUPT pod')
end

local function live(ttl, heartbeat)
  return ttl == '-1' or now_ms() - heartbeat <= ttl * 1000
end

-- report returns the pod's report as a table, nil if podlink did not write it.
local function report(pod, value)
  local load, given, routing, ttl, heartbeat, state = decode(pod, value)
  if not load then return nil end
  return {pod = pod, load = load, given = given, routing = routing, ttl = ttl, heartbeat = heartbeat, state = state}
end

-- read returns the pod's report, nil if there is none, and an error reply if podlink did not write it.
local function read(pod)
  local value = call('HGET', key, pod)
  if not value then return nil, nil end
  local found = report(pod, value)
  if not found then return nil, corrupt() end
  return found, nil
end

local function write(report)
  local value = {report.load, report.given, report.routing, report.ttl, report.heartbeat, report.state}
  call('HSET', key, report.pod, table.concat(value, ' '))
end

-- describe returns the pod as it is in replies; {} for nil.
local function describe(report)
  if not report then return {} end
  return {report.pod, report.state, report.load, report.routing, live(report.ttl, report.heartbeat) and '1' or '0',
    report.heartbeat, report.ttl}
end
