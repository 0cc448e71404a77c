-- statefulCoverGaps notes how many gaps a census has covered. The first one is not stored: it is the time before the first census.
--
-- Needs:   gaps
-- Access:  write
-- Confirm: no, a census that a failover forgets is carried out again
-- KEYS[1]: podlink:fleet
-- ARGV[1]: gaps that were covered
-- Reply:   COVERED: more gaps are covered than before
-- Reply:   KNOWN: as many were covered already; nothing has changed
-- Repeat:  KNOWN

local covers = math.min(tonumber(ARGV[1]), gaps + 1)
if covers <= tonumber(covered) then return {'KNOWN'} end
call('HSET', KEYS[1], 'covered', string.format('%.0f', covers))
return {'COVERED'}
