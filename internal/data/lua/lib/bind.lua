-- bind.lua links the uid to the pod ARGV[3] if the script has set status to LINKED. A new owner gets a new epoch, greater
-- than all earlier ones of the link; the same owner keeps its epoch.
--
-- Then:    write

local changed = false
if status == 'LINKED' then
  local owner = ARGV[3]
  changed = owner ~= pod or expiry ~= '0' or ARGV[2] ~= '-1'
  if owner ~= pod then
    now = now or clock()
    pod, epoch = owner, now
    if last_epoch and (#last_epoch > #now or #last_epoch == #now and last_epoch >= now) then
      -- The clock was set back. There is no epoch above the largest one, which only another writer can have stored.
      if last_epoch == '9007199254740990' then return redis.error_reply('CORRUPT link') end
      epoch = string.format('%d', last_epoch + 1)
    end
  end
end
