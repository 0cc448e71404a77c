-- statefulSetWorkload stores the state of a workload, as of now.
--
-- Access:  write
-- KEYS[1]: podlink:workload:<namespace>:<service>
-- ARGV[1]: state
-- Reply:   STORED <update>: the time in ms since 1970
-- Repeat:  STORED with a later time

local time = redis.call('TIME')
local update = string.format('%.0f', math.floor((time[1] * 1000000 + time[2]) / 1000))
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'update_ms', update)
return {'STORED', update}
