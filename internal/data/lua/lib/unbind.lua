-- unbind.lua removes the link if the script has set status to REMOVED, or keeps it for ARGV[2] seconds if that is not 0. A
-- kept link has no claim: the process that had claimed it has let go of it.
--
-- Then:    write

local changed, gone = status == 'REMOVED', nil
if changed then
  claim = nil
  if ARGV[2] == '0' then pod = nil end
end
