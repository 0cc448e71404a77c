-- bind.lua links the uid to the pod ARGV[3] if the script has set status to LINKED. A new owner gets a new epoch, greater
-- than all earlier ones of the link and than above; the same owner keeps its epoch and its claim. A uid that has ARGV[4] live
-- links gets no further one: every script on its key must stay fast. A link that is already as asked is KEPT: nothing is written.
--
-- Needs:   terms
-- Then:    write

local changed, gone = false, nil
if status == 'LINKED' then
  local owner = ARGV[3]
  changed = owner ~= pod or expiry ~= '0' or ARGV[2] ~= '-1' or renewed
  if not changed then status = 'KEPT' end
  if owner ~= pod or renewed then
    now = now or clock()
    local least = last_epoch
    if above and not (least and (#least > #above or #least == #above and least >= above)) then least = above end
    pod, epoch, claim = owner, now, claimant
    if least and (#least > #now or #least == #now and least >= now) then
      if least == '9007199254740990' then return redis.error_reply('CORRUPT link') end -- No epoch is left.
      epoch = string.format('%d', least + 1) -- The clock was set back.
    end
    if not raw and (fields and #fields / 2 or call('HLEN', key)) >= tonumber(ARGV[4]) then
      -- Expired fields don't count. write.lua deletes them, at most a hundred per call.
      fields, gone = fields or call('HGETALL', key), {}
      local live, current = 0, tonumber(now)
      for i = 1, #fields, 2 do
        local other, _, its_expiry = decode(fields[i + 1])
        if not other or its_expiry == '0' or its_expiry * 1000 > current then
          live = live + 1
        elseif #gone < 100 then
          gone[#gone + 1] = fields[i]
        end
      end
      if live >= tonumber(ARGV[4]) then
        status, changed, pod, claim = 'LIMIT_EXCEEDED', false, nil, nil
      end
    end
  end
end
