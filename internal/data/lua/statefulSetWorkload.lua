-- statefulSetWorkload stores the state of a workload, as of now.
--
-- Needs:   value
-- Needs:   clock
-- Needs:   text
-- Needs:   workload
-- Access:  write
-- KEYS[1]: podlink:workload:<namespace>:<service>
-- ARGV[1]: state
-- Reply:   STORED <update>: the Unix time in ms
-- Repeat:  STORED with a later time

local update = string.sub(clock(), 1, -4)
call('HSET', KEYS[1], 'state', ARGV[1], 'update_ms', update)
return {'STORED', update}
