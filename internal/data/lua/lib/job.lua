-- job.lua reads and checks the job, and has what saves and describes it.
--
-- Needs:   value
-- Needs:   now

local key = KEYS[1]
local stored = call('HMGET', key, 'created', 'started', 'ended', 'lease', 'expiry', 'cancel', 'state', 'spec', 'by', 'progress')
local created, started, ended, lease, expiry, cancel = unpack(stored, 1, 6)
local state, spec, by, progress = unpack(stored, 7, 10)
if state or spec then
  local ours = spec and by and progress and
    (state == 'pending' or state == 'running' or state == 'done' or state == 'cancelled' or state == 'failed')
  for i = 1, 6 do
    if not (stored[i] and string.find(stored[i], '^%d+$') and whole(stored[i], LARGEST)) then ours = false end
  end
  if not ours then return redis.error_reply('CORRUPT job') end
end
local over = state ~= 'pending' and state ~= 'running'

local function number(n) return string.format('%d', n) end

-- save stores the job. It stays for a week after its end; one that nobody runs any more, because the queue was lost, for 30 days.
local function save()
  call('HSET', key, 'created', created, 'started', started, 'ended', ended, 'lease', lease, 'expiry', expiry, 'cancel', cancel,
    'state', state, 'spec', spec, 'by', by, 'progress', progress)
  call('PEXPIRE', key, ended == '0' and '2592000000' or '604800000')
end

local function described(status)
  return {status, number(now), created, started, ended, lease, state, spec, by, progress}
end
