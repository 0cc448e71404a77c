-- above.lua checks the epoch that a new one must exceed: a wrong one must not use up the numbers for epochs.
--
-- Then:    bind

if above then
  now = now or clock()
  if above - now > 86400000000 then status = 'TOO_FAR_AHEAD' end -- more than a day
end
