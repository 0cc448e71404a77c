-- statefulCancelJob ends a job that nobody runs yet, or asks the process that runs it to end it.
--
-- Needs:   job
-- Access:  write
-- KEYS[1]: podlink:job:<namespace>:<id>
-- Reply:   CANCELLED <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: the times are Unix times in ms, 0: not yet
-- Reply:   ASKED <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: it runs, and ends soon
-- Reply:   ENDED <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: it had ended; nothing has changed
-- Reply:   ABSENT: there is no job; nothing has changed
-- Repeat:  ENDED, or ASKED while it runs

if not spec then return {'ABSENT'} end
if over then return described('ENDED') end
if state == 'running' then
  cancel = '1'
  save()
  return described('ASKED')
end
state, ended = 'cancelled', number(now)
save()
return described('CANCELLED')
