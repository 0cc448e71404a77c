package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	regular "podlink/internal/file"
)

// reloadEvery is how often files are read to see whether their content has changed. Their times and inodes say little: Kubernetes
// swaps a link to a folder.
const reloadEvery = 10 * time.Second

// Reload is the state of something that is read again while podlink runs. The last good content stays in force.
type Reload struct {
	key      string
	reloaded func(key string, err error) // may be nil
	now      func() time.Time
	loaded   atomic.Int64           // when the last attempt succeeded, in Unix nanoseconds; 0: never
	failing  atomic.Pointer[string] // the text of the failure; nil: none
	failures atomic.Uint64
}

// Key returns the path of the setting, as in auth.tokens_file.
func (r *Reload) Key() string { return r.key }

// Failing reports whether the last attempt failed.
func (r *Reload) Failing() bool { return r.failing.Load() != nil }

// Failures returns how many attempts have failed.
func (r *Reload) Failures() uint64 { return r.failures.Load() }

// Loaded returns when the last attempt succeeded, the zero time if none has.
func (r *Reload) Loaded() time.Time {
	if at := r.loaded.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// note counts the result of an attempt and returns the failure with its key. A change is reported: another content, another failure.
func (r *Reload) note(err error, changed bool) error {
	var text *string
	if err == nil {
		r.loaded.Store(r.now().UnixNano())
	} else {
		r.failures.Add(1)
		err = fmt.Errorf("%s: %w", r.key, err)
		message := err.Error()
		text = &message
	}
	was := r.failing.Swap(text)
	changed = changed || (was == nil) != (text == nil) || text != nil && *was != *text
	if changed && r.reloaded != nil {
		r.reloaded(r.key, err)
	}
	return err
}

// file is a file that is read again while podlink runs.
type file struct {
	*Reload

	path  string
	every time.Duration
	limit int64
	apply func(content []byte) error
	sum   [sha256.Size]byte // of the content that was applied
	begun bool              // sum is that of a content
}

// newFile returns a file of at most limit bytes that is given to apply each time its content is another than the one which apply
// took last. The errors of apply must not contain anything of the content.
func newFile(key, path string, limit int64, reloaded func(string, error), apply func(content []byte) error) *file {
	return &file{Reload: &Reload{key: key, reloaded: reloaded, now: time.Now}, path: path, every: reloadEvery, limit: limit, apply: apply}
}

// first reads the file at the start, of which nothing is reported: New returns the error.
func (f *file) first() error {
	if _, err := f.load(); err != nil {
		return fmt.Errorf("%s: %w", f.key, err)
	}
	f.loaded.Store(f.now().UnixNano())
	return nil
}

// read reads the file. It must not be called by two goroutines at once.
func (f *file) read() error {
	changed, err := f.load()
	return f.note(err, changed)
}

// load returns whether the content has changed and was applied.
func (f *file) load() (changed bool, err error) {
	content, err := readBounded(f.path, f.limit)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(content)
	if f.begun && sum == f.sum {
		return false, nil
	}
	if err := f.apply(content); err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	f.sum, f.begun = sum, true
	return true, nil
}

// run reads the file until the context ends.
func (f *file) run(ctx context.Context) {
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = f.read() // Noted.
		}
	}
}

var errTooLarge = errors.New("too large")

// readBounded returns the content of a file that has at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := readAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}

// readAll reads at most limit bytes, and refuses more.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return b.Bytes(), nil
}
