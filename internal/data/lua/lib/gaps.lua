-- gaps.lua reads how many gaps there were in the feeds, and how many of them a census has covered.
--
-- Needs:   value

local stored = call('HMGET', KEYS[1], 'gaps', 'covered')
local gaps, covered = stored[1] or '0', stored[2] or '0'
local ours = string.find(gaps, '^%d+$') and whole(gaps, LARGEST_TIME) and string.find(covered, '^%d+$') and whole(covered, LARGEST_TIME)
if not ours then return redis.error_reply('CORRUPT fleet') end
