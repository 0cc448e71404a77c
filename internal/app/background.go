package app

import (
	"context"
	"sync"
)

// background runs functions until Stop. It is a Kratos transport.Server.
type background struct {
	run     []func(ctx context.Context) error // each returns when ctx ends
	once    sync.Once
	stopped chan struct{} // closed by Stop
}

// Start implements transport.Server. It returns when all functions have.
func (b *background) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	failures := make(chan error, len(b.run))
	for _, run := range b.run {
		group.Go(func() { failures <- run(ctx) })
	}
	defer group.Wait()
	defer cancel()
	for range b.run {
		select {
		case <-b.stopped:
			return nil
		case err := <-failures:
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Stop implements transport.Server.
func (b *background) Stop(context.Context) error {
	b.once.Do(func() { close(b.stopped) })
	return nil
}
