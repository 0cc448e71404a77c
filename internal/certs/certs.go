// Package certs keeps the TLS files of podlink and of its client up to date: it reads them again when their content changes.
//
// Two things to know. A new connection uses the files as they are, and an open one stays. And each connection gets a tls.Config of
// its own, so that it is Go that verifies the peer: a callback (VerifyConnection) is not shown the host of a client that dials an IP
// address.
package certs

import (
	"context"
	"sync"
	"time"
)

// DefaultInterval is Options.Interval where it is 0.
const DefaultInterval = 10 * time.Second

// Logger is the part of a logger that a Reloader uses.
type Logger interface {
	Infof(format string, args ...any)
	Warnf(format string, args ...any)
}

// Options configures a Reloader.
type Options struct {
	// Interval is the pause between two reads of all files. 0 is DefaultInterval.
	Interval time.Duration
	// Log gets a line for each file that was reloaded, and for each change that can't be used.
	Log Logger
	// Reloaded is called for the same, with the key of the file, and with why it can't be used. It may be nil.
	Reloaded func(key string, err error)
}

// Reloader reads TLS files again. With a nil *Reloader they are read once. It is safe for concurrent use.
type Reloader struct {
	options Options

	mu      sync.Mutex
	sources []*Source
}

// New returns a Reloader, which does nothing before Run.
func New(o Options) *Reloader {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	return &Reloader{options: o}
}

// Run reads all files in each interval, until ctx ends. It does not fail.
func (r *Reloader) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			for _, source := range r.Sources() {
				if ctx.Err() == nil {
					r.reload(source, now)
				}
			}
		}
	}
}

// Sources returns what is kept up to date, for metrics.
func (r *Reloader) Sources() []*Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sources[:len(r.sources):len(r.sources)]
}

// open reads a source for the first time, and adds it.
func (r *Reloader) open(s *Source) (*Source, error) {
	if err := s.load(); err != nil {
		return nil, err
	}
	if r == nil {
		return s, nil
	}
	if err := s.current.Load().validAt(time.Now()); err != nil {
		r.options.Log.Warnf("%s: %v", s.Key(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = append(r.sources, s)
	return s, nil
}

// reload reads a source again, and reports what has changed.
func (r *Reloader) reload(s *Source, now time.Time) {
	changed, err := s.reload(now)
	switch {
	case !changed:
		return
	case err != nil:
		r.options.Log.Warnf("%s: the files have changed and can't be used, the former ones stay in use: %v", s.Key(), err)
	default:
		r.options.Log.Infof("%s: reloaded, valid until %s", s.Key(), day(s.NotAfter()))
	}
	if r.options.Reloaded != nil {
		r.options.Reloaded(s.Key(), err)
	}
}
