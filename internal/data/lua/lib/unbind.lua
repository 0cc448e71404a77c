-- unbind.lua follows a script that removes the link when its status is REMOVED, unless ARGV[2] says how long to keep it.
--
-- Then:    write

local changed = status == 'REMOVED'
if changed and ARGV[2] == '0' then pod = nil end
