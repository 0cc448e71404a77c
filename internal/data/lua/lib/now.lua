-- now.lua reads the store's clock, once per run.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- Unix time in ms
