-- statefulAddGap notes that changes may be missing in the feeds: the index is incomplete until a census has covered it.
--
-- Needs:   gaps
-- Access:  write
-- Confirm: no, a failover that loses it is itself a gap
-- KEYS[1]: podlink:fleet
-- Reply:   ADDED: there is one gap more
-- Repeat:  ADDED: there is another one

call('HINCRBY', KEYS[1], 'gaps', 1)
return {'ADDED'}
