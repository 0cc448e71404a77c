-- bind.lua follows a script that links the uid when its status is LINKED: to the pod ARGV[2], for ARGV[3] seconds, -1:
-- persistently. A new owner gets a new epoch, greater than every earlier one of this link; the same owner keeps its own.
--
-- Then:    write

local changed = false
if status == 'LINKED' then
  local owner, seconds = ARGV[2], ARGV[3]
  changed = owner ~= pod or expiry ~= '0' or seconds ~= '-1'
  if owner ~= pod then
    local new_epoch = now_us()
    if last_epoch and last_epoch + 1 > new_epoch then new_epoch = last_epoch + 1 end
    pod, epoch = owner, format('%d', new_epoch)
  end
  expiry = '0'
  if seconds ~= '-1' then expiry = format('%d', now_ms() + seconds * 1000) end
end
