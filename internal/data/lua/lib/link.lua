-- link.lua stands before every script whose header says "Needs: link". It reads and writes one field of KEYS[1], the
-- hash of all links of one uid: ARGV[1], the service -> "<pod> <epoch> <expiry>". The epoch is in µs, the expiry in ms
-- since 1970, 0 for a persistent link.
--
-- The expiry in the field decides, to the millisecond. The TTL of the key only sweeps up: the key carries one exactly
-- when all its links are temporary, and it ends GRACE_MS after the last of them, so that it is never early.
--
-- Needs:   value
-- Needs:   clock

local GRACE_MS = 1000
local FOREIGN = math.huge

local key, service = KEYS[1], ARGV[1]

-- decode returns the link that a field's value stands for, nil when podlink did not write it.
local function decode(value)
  local pod, epoch, expiry = string.match(value, '^(%d+) (%d+) (%d+)$')
  if not pod or epoch == '0' then return nil end
  if not (whole(pod, LARGEST_INT32) and whole(epoch, LARGEST - 1) and whole(expiry, LARGEST)) then return nil end
  return {pod = pod, epoch = tonumber(epoch), expiry = tonumber(expiry)}
end

local function live(link)
  return link.expiry == 0 or link.expiry > now_ms()
end

local function corrupt()
  return redis.error_reply('CORRUPT link')
end

local raw -- the field's value; false without one
local stored -- the field's link, expired or not; nil without one
local current -- the same while it is live

-- load reads the field into stored and current; it returns an error reply when podlink did not write the field.
local function load()
  raw = redis.call('HGET', key, service)
  if not raw then return nil end
  stored = decode(raw)
  if not stored then return corrupt() end
  if live(stored) then current = stored end
  return nil
end

local function ttl(link)
  if link.expiry == 0 then return '-1' end
  -- The clock may have been set back since.
  return digits(math.min(math.ceil((link.expiry - now_ms()) / 1000), LARGEST_INT32))
end

-- state describes a link, or the absence of one.
local function state(link)
  if not link then return '-1', '0', '-2' end
  return link.pod, digits(link.epoch), ttl(link)
end

-- answer is what every script on one link replies: what became of the call, the pod of the live link before it (-1:
-- none), and the link that stands after it.
local function answer(status, link)
  return {status, current and current.pod or '-1', state(link)}
end

-- others looks at the uid's other links: the latest expiry among them, 0 without any, FOREIGN when one is persistent or
-- was not written by podlink; and the services whose links have expired, of which at most a hundred are swept at once.
local function others()
  local latest, expired = 0, {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= service then
      local link = decode(fields[i + 1])
      if not link or link.expiry == 0 then
        latest = FOREIGN
      elseif live(link) then
        latest = math.max(latest, link.expiry)
      elseif #expired < 100 then
        expired[#expired + 1] = fields[i]
      end
    end
  end
  return latest, expired
end

-- sweep_at gives the key the TTL that the latest expiry of its links asks for. What podlink did not write may have come
-- to a key that has a TTL already: it must not go with it. It returns what Redis replied.
local function sweep_at(expiry)
  if expiry == FOREIGN then return redis.pcall('PERSIST', key) end
  if expiry > 0 then return redis.pcall('PEXPIREAT', key, digits(expiry + GRACE_MS)) end
end

-- undo puts the field back and fails: a user who has lost the right to a command since podlink's start must not leave a
-- link behind that lacks its TTL, or a persistent one that goes with the TTL of others.
local function undo(failure)
  if raw then redis.call('HSET', key, service, raw) else redis.call('HDEL', key, service) end
  error(failure)
end

-- save writes the link. It comes last in every script: what could fail has been checked before.
local function save(link)
  local latest, expired = 0, {}
  if link.expiry > 0 then latest, expired = others() end
  redis.call('HSET', key, service, link.pod .. ' ' .. digits(link.epoch) .. ' ' .. digits(link.expiry))
  local reply
  if link.expiry > 0 then
    reply = sweep_at(math.max(latest, link.expiry))
  elseif not (stored and stored.expiry == 0) then
    reply = redis.pcall('PERSIST', key)
  end
  if type(reply) == 'table' then undo(reply.err) end
  if #expired > 0 then redis.call('HDEL', key, unpack(expired)) end
end

-- expiry_in is the expiry of a link made now that lasts for that many seconds; '-1': persistent.
local function expiry_in(seconds)
  if seconds == '-1' then return 0 end
  return now_ms() + seconds * 1000
end

-- bind links the uid to the pod: a new owner gets a new epoch, greater than every earlier one of this link; the same
-- owner keeps its own.
local function bind(pod, seconds)
  local link = {pod = pod, expiry = expiry_in(seconds)}
  if current and current.pod == pod then
    if current.expiry == 0 and link.expiry == 0 then return current end
    link.epoch = current.epoch
  else
    link.epoch = math.max(stored and stored.epoch + 1 or 0, now_us())
  end
  save(link)
  return link
end

-- unbind removes the live link, or makes it a temporary one for that many seconds; '0': removes it now. It returns the
-- link that stands.
local function unbind(seconds)
  if seconds ~= '0' then
    local link = {pod = current.pod, epoch = current.epoch, expiry = expiry_in(seconds)}
    -- A removal has to work also when Redis is out of memory, and a script that has written once may write on then. This
    -- is the write that needs no memory and loses nothing: save gives the key its TTL.
    redis.call('PERSIST', key)
    save(link)
    return link
  end
  local latest, expired = others()
  expired[#expired + 1] = service
  redis.call('HDEL', key, unpack(expired))
  -- Without it a key may stay for longer than its links, which no answer shows.
  sweep_at(latest)
  return nil
end

-- has_epoch tells whether the link's epoch is the expected one; '0': there is no link, '': none is expected.
local function has_epoch(expected)
  return expected == '' or expected == (current and digits(current.epoch) or '0')
end
