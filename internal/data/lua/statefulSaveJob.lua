-- statefulSaveJob stores the progress of a job for the process that has its lease, and renews or ends the lease.
--
-- Needs:   job
-- Access:  write
-- Confirm: no, a job goes on from any earlier progress
-- KEYS[1]: podlink:job:<namespace>:<id>
-- ARGV[1]: lease
-- ARGV[2]: state; pending: it runs, and another process is to take it
-- ARGV[3]: progress
-- ARGV[4]: TTL of the lease in ms
-- Reply:   SAVED <cancel>: 1 if the job is to be cancelled, else 0
-- Reply:   LOST: there was a later lease, or the job has ended or is gone; nothing has changed
-- Repeat:  SAVED; LOST if the job has ended

if not spec or over or lease ~= ARGV[1] then return {'LOST'} end
progress, expiry = ARGV[3], '0'
if ARGV[2] == 'running' then
  expiry = number(now + ARGV[4])
elseif ARGV[2] ~= 'pending' then
  state, ended = ARGV[2], number(now)
end
save()
return {'SAVED', cancel}
