// Package store keeps the counts in files. It fences: a process that has lost a user can't write the user's count any more.
package store

import (
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

// ErrFenced is the refusal of a process that has lost the user: a later one has loaded the count.
var ErrFenced = errors.New("a greater epoch is stored")

// Store is a folder with a file for each user.
type Store struct {
	Folder string
}

type record struct {
	Epoch, Visits int64
}

// Load returns the count. In the same step it raises the stored epoch, so that from now on no earlier process can write.
func (s Store) Load(uid string, epoch int64) (visits int64, err error) {
	err = s.update(uid, epoch, func(r *record) { visits = r.Visits })
	return visits, err
}

// Save stores the count, unless a process with a greater epoch has loaded it.
func (s Store) Save(uid string, epoch, visits int64) error {
	return s.update(uid, epoch, func(r *record) { r.Visits = visits })
}

// update changes a record and raises its epoch in one step, which the lock of the file makes one.
func (s Store) update(uid string, epoch int64, change func(*record)) error {
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(s.Folder, url.PathEscape(uid)+".json"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() // It also unlocks the file.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	var r record
	if err := json.NewDecoder(file).Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if epoch < r.Epoch {
		return ErrFenced
	}
	change(&r)
	r.Epoch = epoch
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// The text never gets shorter: neither number does.
	_, err = file.WriteAt(text, 0)
	return err
}
