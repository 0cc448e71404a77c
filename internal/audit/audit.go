// Package audit writes the audit log: one JSON line for each change, refusal and reload. It never blocks a call.
package audit
