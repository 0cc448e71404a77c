-- write.lua writes the link as it stands now if it has changed, for ARGV[2] seconds, -1: persistently; without a pod it
-- removes the link. What could fail has been checked before.
--
-- The TTL of the key only sweeps up: the key carries one exactly when all its links are temporary, and it ends GRACE_MS
-- after the last of them, so that it is never early.
--
-- Then:    answer

if changed then
  local GRACE_MS, NEVER = 1000, 2 ^ 53 -- later than every expiry
  local latest = NEVER -- the latest expiry of the uid's links; NEVER when one is persistent or was not written by podlink
  local gone -- services whose links are no more; of expired ones at most a hundred are swept at once
  left = ARGV[2]
  if left == '-1' then
    expiry = '0'
  else
    latest, gone = 0, {}
    if pod then
      now = now or clock()
      latest = string.sub(now, 1, -4) + left * 1000
      expiry = string.format('%d', latest)
    else
      gone[1] = service
    end
    for i = 1, #fields, 2 do
      if fields[i] ~= service then
        local other, _, its_expiry = decode(fields[i + 1])
        if not other or its_expiry == '0' then
          latest = NEVER
        else
          now = now or clock()
          if its_expiry * 1000 > tonumber(now) then
            latest = math.max(latest, tonumber(its_expiry))
          elseif #gone < 100 then
            gone[#gone + 1] = fields[i]
          end
        end
      end
    end
  end
  if not pod then
    call('HDEL', key, unpack(gone))
  else
    local value = pod .. ' ' .. epoch .. ' ' .. expiry
    if status ~= 'REMOVED' then
      call('HSET', key, service, value)
    elseif type(redis.pcall('HSET', key, service, value)) == 'table' then
      -- A removal has to work also when Redis is out of memory, and a script that has written once may write on then. This
      -- is the write that needs no memory and loses nothing: the key gets its TTL below.
      call('PERSIST', key)
      call('HSET', key, service, value)
    end
  end
  local reply
  if latest == NEVER then
    -- Temporary links may have given the key a TTL.
    if last_expiry ~= '0' then reply = redis.pcall('PERSIST', key) end
  elseif latest > 0 then
    reply = redis.pcall('PEXPIREAT', key, string.format('%d', latest + GRACE_MS))
  end
  if pod and type(reply) == 'table' then
    -- The user has lost the right to a command since podlink's start. That must not leave a link behind that lacks its
    -- TTL, or a persistent one that goes with the TTL of others: the field is put back. After a removal the key only
    -- stays for longer than its links, which no answer shows.
    if raw then call('HSET', key, service, raw) else call('HDEL', key, service) end
    error(reply.err)
  end
  if pod and gone and #gone > 0 then call('HDEL', key, unpack(gone)) end
end
