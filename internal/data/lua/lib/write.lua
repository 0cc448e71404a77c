-- write.lua writes the link as it stands now, or removes it, if it has changed. What could fail has been checked before.
--
-- The TTL of the key only sweeps up: the key carries one exactly when all its links are temporary, and it ends GRACE_MS
-- after the last of them, so that it is never early.
--
-- Then:    answer

if changed then
  local GRACE_MS, NEVER = 1000, math.huge
  local latest = 0 -- the latest expiry of the uid's links; NEVER when one is persistent or was not written by podlink
  local gone = {} -- services whose links are no more; of expired ones at most a hundred are swept at once
  if pod then latest = expiry == '0' and NEVER or tonumber(expiry) else gone[1] = service end
  if latest ~= NEVER then
    local fields = call('HGETALL', key)
    for i = 1, #fields, 2 do
      if fields[i] ~= service then
        local other, _, its_expiry = decode(fields[i + 1])
        if not other or its_expiry == '0' then
          latest = NEVER
        elseif tonumber(its_expiry) > now_ms() then
          latest = math.max(latest, tonumber(its_expiry))
        elseif #gone < 100 then
          gone[#gone + 1] = fields[i]
        end
      end
    end
  end
  if pod then
    call('HSET', key, service, pod .. ' ' .. epoch .. ' ' .. expiry)
  else
    call('HDEL', key, unpack(gone))
  end
  local reply
  if latest ~= NEVER and latest > 0 then
    reply = pcall('PEXPIREAT', key, format('%d', latest + GRACE_MS))
  elseif latest == NEVER and last_expiry ~= '0' then
    reply = pcall('PERSIST', key) -- Temporary links may have given the key a TTL.
  end
  if pod and reply and type(reply) == 'table' then
    -- The user has lost the right to a command since podlink's start. That must not leave a link behind that lacks its
    -- TTL, or a persistent one that goes with the TTL of others: the field is put back. After a removal the key only
    -- stays for longer than its links, which no answer shows.
    if raw then call('HSET', key, service, raw) else call('HDEL', key, service) end
    error(reply.err)
  end
  if pod and #gone > 0 then call('HDEL', key, unpack(gone)) end
end
