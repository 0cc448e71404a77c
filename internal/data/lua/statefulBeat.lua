-- statefulBeat raises the counter of a writer, and lists all writers. A new writer is added.
--
-- Needs:   writers
-- Access:  write
-- Confirm: no, a writer that a failover forgets adds itself again
-- KEYS[1]: podlink:writers
-- ARGV[1]: writer
-- Reply:   BEATEN, then <writer> and <counter> for every writer, in no order
-- Repeat:  BEATEN; the counter is raised once more

local reply, own = call('HGETALL', KEYS[1]), nil
for i = 1, #reply, 2 do
  if not is_counter(reply[i + 1]) then return redis.error_reply('CORRUPT writers') end
  if reply[i] == ARGV[1] then own = i + 1 end
end
if not own then
  own = #reply + 2
  reply[own - 1] = ARGV[1]
end
reply[own] = string.format('%.0f', call('HINCRBY', KEYS[1], ARGV[1], 1))
table.insert(reply, 1, 'BEATEN')
return reply
