-- statefulAppendFeed appends an entry to the feed of a service, trims the feed, and lets it disappear when nobody appends to it.
-- The id of an entry is the store's time and the number of the entry, without holes: so a reader notices what was trimmed.
--
-- Needs:   now
-- Access:  write
-- Confirm: no, a failover that loses entries is itself a gap in the feed
-- KEYS[1]: podlink:feed:<namespace>:<service>
-- ARGV[1]: field; c: changes, g: a gap
-- ARGV[2]: its value
-- ARGV[3]: age in ms at which an entry is trimmed
-- Reply:   APPENDED <id>: the id of the entry
-- Repeat:  APPENDED with another id: the entry is in the feed twice

local LONGEST = 100000 -- entries, about

local call = redis.call
local last = call('XREVRANGE', KEYS[1], '+', '-', 'count', '1')[1]
local at, number = now, 0
if last then
  local its_at, its_number = string.match(last[1], '^(%d+)-(%d+)$')
  if #its_at > 15 or #its_number > 15 then return redis.error_reply('CORRUPT feed') end
  at, number = math.max(now, tonumber(its_at)), tonumber(its_number)
end
local id = string.format('%.0f-%.0f', at, number + 1)
local oldest = string.format('%.0f', math.max(now - ARGV[3], 0))
call('XADD', KEYS[1], 'maxlen', '~', LONGEST, id, ARGV[1], ARGV[2])
call('XTRIM', KEYS[1], 'minid', '~', oldest)
call('PEXPIRE', KEYS[1], string.format('%.0f', 2 * ARGV[3]))
return {'APPENDED', id}
