-- statefulCreateJob stores a job that nobody runs yet.
--
-- Needs:   job
-- Access:  write
-- KEYS[1]: podlink:job:<namespace>:<id>
-- ARGV[1]: spec
-- ARGV[2]: who has asked for it
-- Reply:   CREATED <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: the times are Unix times in ms, 0: not yet
-- Reply:   EXISTS <now> <created> <started> <ended> <lease> <state> <spec> <by> <progress>: there is a job; nothing has changed
-- Repeat:  EXISTS

if spec then return described('EXISTS') end
spec, by, state, progress = ARGV[1], ARGV[2], 'pending', ''
created, started, ended, lease, expiry, cancel = number(now), '0', '0', '0', '0', '0'
save()
return described('CREATED')
