-- statefulAddService adds a service to the known ones.
--
-- Needs:   member
-- Access:  write
-- Confirm: no, every process adds it again within a minute of its next change
-- KEYS[1]: podlink:services
-- ARGV[1]: <namespace>:<service>
-- Reply:   ADDED: it was not known
-- Reply:   KNOWN: it was; nothing has changed
-- Repeat:  KNOWN

return added and {'ADDED'} or {'KNOWN'}
