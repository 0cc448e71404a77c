-- timers.lua runs what is due by the store's clock: cordons that lift themselves, and the counts of links given out to pods
-- whose reports never expire, which are halved every minute. At most 16 per call.
--
-- Needs:   change

local MINUTE = 60000

-- halve halves the count of links given out, once for each minute since.
local function halve(meta, report, due)
  local given = report.burden - report.load
  given = math.floor(given / 2 ^ (1 + math.floor((now - due) / MINUTE)))
  report.burden = report.load + given
  place(report, report.burden)
  if given > 0 then schedule(meta, '~' .. report.pod, now + MINUTE) end
end

-- lift removes a lapsed cordon.
local function lift(report)
  report.cordon, report.lifts = '0', '0'
  remove(report.member)
  if report.buried then
    add(-BURIED - report.pod - 2, encode(report))
    add(DEAD_AGE + report.at, '@' .. report.pod)
  else
    add(-report.pod - 2, encode(report))
    place(report, report.burden)
  end
end

local function run_timers(meta)
  local due, reports = within(TIMER, TIMER * 2 - 1, '17'), {}
  meta.due = 0
  for i = 1, #due, 2 do
    local at = due[i + 1] - TIMER
    if i > 32 or at > now then
      meta.due = meta.due == 0 and at or math.min(meta.due, at)
      break
    end
    remove(due[i])
    local kind, pod = string.match(due[i], '^([~^])(%d+)$')
    local report = pod and (reports[pod] or find(pod))
    if report then
      reports[pod] = report
      report.burden = report.burden or not report.buried and burden_of(report)
      if kind == '^' and report.lifts ~= '0' and now >= tonumber(report.lifts) and (report.buried or report.burden) then
        lift(report)
      elseif kind == '~' and report.ttl == '-1' and report.burden then
        halve(meta, report, at)
      end
    end
  end
  replace(meta)
  commit()
end
