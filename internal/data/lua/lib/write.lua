-- write.lua writes the link if it has changed, for ARGV[2] seconds (-1: persistent), or removes it if pod is nil. All
-- checks have been made before. gone has the fields to delete: at most a hundred expired ones per call.
--
-- The TTL of the key is garbage collection only: the key has a TTL if and only if all its links are temporary, and it
-- expires GRACE_MS after the last of them, never early.
--
-- Then:    reply

if changed then
  local GRACE_MS, NEVER = 1000, 2 ^ 53 -- later than every expiry
  local latest = NEVER -- the latest expiry of the uid's links; NEVER if one is persistent or was not written by podlink
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
    if claim then value = value .. ' ' .. claim end
    if status ~= 'REMOVED' then
      call('HSET', key, service, value)
    elseif type(redis.pcall('HSET', key, service, value)) == 'table' then
      -- A removal must work even if Redis is out of memory, where a script may still write after its first write. PERSIST
      -- is a first write that needs no memory and does no harm: the key gets its TTL below.
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
    -- The user has lost the permission for a command since the self-test. Restore the field: a key of temporary links must
    -- not lack its TTL, and a persistent link must not expire with the TTL of others. After a removal, the key only
    -- outlives its links, which no reply shows.
    if raw then call('HSET', key, service, raw) else call('HDEL', key, service) end
    error(reply.err)
  end
  -- The epoch of a removed link orders its removal among the changes of the link.
  if not pod then return status .. ' ' .. previous .. ' -1 0 -2 ' .. epoch end
  if gone and #gone > 0 then call('HDEL', key, unpack(gone)) end
end
