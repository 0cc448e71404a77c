-- statefulTakeJob gives the lease of a job to the caller, who is to run it. A later lease is a greater number.
--
-- Needs:   job
-- Access:  write
-- Confirm: no, each step of a job is on a condition, so that two processes may run it
-- KEYS[1]: podlink:job:<namespace>:<id>
-- ARGV[1]: TTL of the lease in ms
-- Reply:   TAKEN <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: the times are Unix times in ms, 0: not yet
-- Reply:   BUSY: another process has the lease; nothing has changed
-- Reply:   ENDED: the job has ended; nothing has changed
-- Reply:   ABSENT: there is no job; nothing has changed
-- Repeat:  BUSY

if not spec then return {'ABSENT'} end
if over then return {'ENDED'} end
if tonumber(expiry) > now then return {'BUSY'} end
if state == 'pending' then state, started = 'running', number(now) end
lease = number(math.max(lease + 1, now * 1000))
expiry = number(now + ARGV[1])
save()
return described('TAKEN')
