package sim

import (
	"fmt"
	"sync"
)

// Storage is the pods' storage: loading raises the stored epoch in the same step, and what carries an older epoch than
// the stored one is refused. It reports what fencing can't catch: an epoch that two processes have, and an update that is lost.
type Storage struct {
	report func(format string, args ...any) // a violation

	mu      sync.Mutex
	records map[string]*record
}

// record is what is stored for a user.
type record struct {
	epoch  int64
	owner  string // the process that has loaded it with the epoch
	value  int64  // counts the writes
	writes int
}

// NewStorage returns an empty storage. report is called with each violation.
func NewStorage(report func(format string, args ...any)) *Storage {
	return &Storage{report: report, records: make(map[string]*record)}
}

func (f *Storage) find(uid string) *record {
	r := f.records[uid]
	if r == nil {
		r = new(record)
		f.records[uid] = r
	}
	return r
}

// Load returns the stored value, and raises the epoch. It returns false if a greater one is stored.
func (f *Storage) Load(uid, process string, epoch int64) (value int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.find(uid)
	if !f.admit(r, uid, process, epoch) {
		return 0, false
	}
	r.epoch, r.owner = epoch, process
	return r.value, true
}

// Write stores the value that follows the one that the process has loaded or written. It returns false if a greater epoch is
// stored.
func (f *Storage) Write(uid, process string, epoch, value int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.find(uid)
	if !f.admit(r, uid, process, epoch) {
		return false
	}
	if value != r.value+1 {
		f.report("lost update: %s writes value %d of %s with epoch %d over %d", process, value, uid, epoch, r.value)
	}
	r.epoch, r.owner, r.value = epoch, process, value
	r.writes++
	return true
}

func (f *Storage) admit(r *record, uid, process string, epoch int64) bool {
	switch {
	case epoch <= 0:
		f.report("no epoch: %s uses %s with epoch %d", process, uid, epoch)
		return false
	case epoch < r.epoch:
		return false
	case epoch == r.epoch && r.owner != process:
		f.report("one epoch, two processes: %s and %s have %s with epoch %d", r.owner, process, uid, epoch)
	}
	return true
}

// String sums up what was written, to compare two runs.
func (f *Storage) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	writes := 0
	for _, r := range f.records {
		writes += r.writes
	}
	return fmt.Sprintf("%d writes for %d users", writes, len(f.records))
}
