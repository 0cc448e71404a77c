-- statefulUpdateIndex adds entries to the index of a pod, and removes some, in the order of the arguments. An entry with a greater
-- epoch stays: so late and repeated updates of one uid end with the same entry.
--
-- Access:  write
-- Confirm: no, the index is rebuilt from the links after a failover
-- KEYS[1]: podlink:index:<namespace>:<service>:<pod>
-- ARGV:    at most 512 updates, each of three arguments:
--          + <field> <value>: add <epoch> or <epoch> <expiry>, unless the entry has a greater epoch
--          - <field> <epoch>: remove the entry, unless it has a greater epoch
--          = <field> <value>: set the field
--          ! <field> <anything>: delete the field
-- Reply:   UPDATED: the index is as asked
-- Repeat:  UPDATED; nothing changes

local ARGV = ARGV -- A local is faster than a global.
local call = redis.call
local count = #ARGV / 3
local fields, latest = {}, {} -- latest has the value of each field after the updates so far; false: none
for i = 1, count do fields[i] = ARGV[3 * i - 1] end
local before = call('HMGET', KEYS[1], unpack(fields))
for i = 1, count do latest[fields[i]] = before[i] end

for i = 1, count do
  local op, field, value = ARGV[3 * i - 2], fields[i], ARGV[3 * i]
  local found = latest[field]
  if op == '=' then
    latest[field] = value
  elseif op == '!' then
    latest[field] = false
  elseif found then
    local epoch = string.match(found, '^[1-9]%d*$') or string.match(found, '^([1-9]%d*) [1-9]%d*$')
    if not epoch or #epoch > 15 and (#epoch > 16 or epoch > '9007199254740990') then return redis.error_reply('CORRUPT index') end
    local given = string.match(value, '^%d+')
    if #given > #epoch or #given == #epoch and given >= epoch then latest[field] = op == '+' and value end
  elseif op == '+' then
    latest[field] = value
  end
end

local set, gone = {}, {}
for i = 1, count do
  local field = fields[i]
  local value = latest[field]
  if value ~= before[i] then
    if value then
      set[#set + 1] = field
      set[#set + 1] = value
    else
      gone[#gone + 1] = field
    end
    latest[field] = before[i] -- A field may have several updates.
  end
end
if #set > 0 then call('HSET', KEYS[1], unpack(set)) end
if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
return {'UPDATED'}
