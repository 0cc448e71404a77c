// Package lines writes lines of logs: a queue that never blocks its callers, a file that can be opened again, and one line for
// many that repeat. podlink's log and its audit log share it, so it knows no other package of podlink.
package lines
