-- unbind.lua removes the link if the script has set status to REMOVED, or keeps it for ARGV[2] seconds if that is not 0.
--
-- Then:    write

local changed = status == 'REMOVED'
if changed and ARGV[2] == '0' then pod = nil end
