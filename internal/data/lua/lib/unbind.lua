-- unbind.lua follows a script that removes the link when its status is REMOVED, or with ARGV[2] >= 1 makes it a temporary
-- one for that many seconds.
--
-- Then:    write

local changed = status == 'REMOVED'
if changed and ARGV[2] == '0' then
  pod = nil
elseif changed then
  -- A removal has to work also when Redis is out of memory, and a script that has written once may write on then. This is
  -- the write that needs no memory and loses nothing: the key gets its TTL below.
  call('PERSIST', key)
  expiry = format('%d', now_ms() + ARGV[2] * 1000)
end
