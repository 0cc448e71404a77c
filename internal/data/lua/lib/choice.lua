-- choice.lua reserves the best pod of a service in the usual case: no link, no wishes, and the first pod of the ranking is
-- live and remains below its capacity. It reads three members, however many pods there are. Everything else is left to the
-- code after it. It comes before all functions, because each run of a script creates its functions.
--
-- Needs:   now

local key = KEYS[1]

-- The meta member has the score -1, just below those of the ranking, so that one command reads it and the best pod.
local head = redis.call('ZRANGEBYSCORE', key, '-1', '(2199023255552', 'WITHSCORES', 'LIMIT', '0', '2')
if not ARGV[2] and ARGV[1] == '-1' and head[2] == '-1' and head[3] then
  local heard, due = string.match(head[1], '^(%d+) %d+ %d+ %d+ %d+ (%d+) %d+ %d+$')
  local pod, load, capacity, ttl, at, heard_at, set =
    string.match(head[3], '^0*(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)$')
  local burden = head[4] + 1
  if
    heard and pod and (due == '0' or now < tonumber(due)) and (capacity == '-1' or burden < tonumber(capacity))
    and (ttl == '-1' and burden - 1 > tonumber(load) or now - at <= ttl * 1000 and heard - heard_at <= ttl * 1000)
  then
    if set == '0' then
      redis.call('ZADD', key, string.format('%d', burden), head[3])
    else
      local among = string.format('%d', (set + 1) * 2199023255552 + burden)
      redis.call('ZADD', key, string.format('%d', burden), head[3], among, set .. ':' .. head[3])
    end
    return {'RESERVED', pod, at}
  end
end
