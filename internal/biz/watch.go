package biz

// ResyncReason is why a watcher may have missed changes.
type ResyncReason string

// The reasons of a resync.
const (
	ResyncStart   ResyncReason = "START"
	ResyncGap     ResyncReason = "GAP"
	ResyncTrimmed ResyncReason = "TRIMMED"
	ResyncSlow    ResyncReason = "SLOW"
)
