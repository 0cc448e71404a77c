// Package certs reads TLS files again all the time, for tests that replace them.
package certs

import (
	"context"
	"testing"
	"time"

	"podlink/internal/certs"
)

// interval is the pause between two reads.
const interval = 5 * time.Millisecond

// Start returns a Reloader that reads its files until the test ends.
func Start(tb testing.TB) *certs.Reloader {
	tb.Helper()
	files := certs.New(certs.Options{Interval: interval, Log: quiet{}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = files.Run(ctx) // It does not fail.
	}()
	tb.Cleanup(func() {
		cancel()
		<-ended
	})
	return files
}

type quiet struct{}

func (quiet) Infof(string, ...any) {}
func (quiet) Warnf(string, ...any) {}
