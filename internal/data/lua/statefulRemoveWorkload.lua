-- statefulRemoveWorkload deletes the state of a workload.
--
-- Needs:   value
-- Needs:   text
-- Needs:   workload
-- Access:  write
-- KEYS[1]: podlink:workload:<namespace>:<service>
-- Reply:   REMOVED <update> <state>: the deleted state; update is the Unix time in ms
-- Reply:   ABSENT: there was none; nothing has changed
-- Repeat:  ABSENT

if not state then return {'ABSENT'} end
call('HDEL', KEYS[1], 'state', 'update_ms')
return {'REMOVED', updated, state}
