-- statefulAddIndexed adds a pod to those of the service that have an index.
--
-- Needs:   member
-- Access:  write
-- Confirm: no, every process adds it again within a minute of its next change
-- KEYS[1]: podlink:pods:<namespace>:<service>
-- ARGV[1]: pod
-- Reply:   ADDED: it had none
-- Reply:   KNOWN: it had one; nothing has changed
-- Repeat:  KNOWN

return added and {'ADDED'} or {'KNOWN'}
