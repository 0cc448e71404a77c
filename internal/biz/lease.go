package biz

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// leaseTTL is how long a lease lasts without a renewal: after it another process takes over.
	leaseTTL = 5 * time.Second
	// leaseRenewal is the time between two renewals.
	leaseRenewal = time.Second
)

// errLeaseLost is why work under a lease has ended: another process may do it now.
var errLeaseLost = errors.New("the lease was lost")

// withLease calls do while the holder has the lease: the context of do ends when the lease is lost. It returns false at once, and does
// not call do, if another process has the lease.
//
// A lease only saves work. For a moment two processes may do the same, so what is done under one must be right nevertheless.
func withLease(ctx context.Context, index IndexRepo, name, holder string, do func(ctx context.Context)) (taken bool, err error) {
	asked := time.Now()
	if taken, err = index.Lease(ctx, name, holder, leaseTTL); err != nil || !taken {
		return false, err
	}
	held, end := context.WithCancelCause(ctx)
	var renewals sync.WaitGroup
	renewals.Go(func() { end(renewLease(held, index, name, holder, asked)) })
	do(held)
	end(nil)
	renewals.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseRenewal)
	defer cancel()
	_ = index.Release(ctx, name, holder) // It also ends by itself.
	return true, nil
}

// renewLease renews a lease until ctx ends or the lease is lost.
func renewLease(ctx context.Context, index IndexRepo, name, holder string, renewed time.Time) error {
	for {
		if err := pause(ctx, leaseRenewal); err != nil {
			return err
		}
		asked, expiry := time.Now(), renewed.Add(leaseTTL)
		call, cancel := context.WithDeadline(ctx, expiry)
		mine, err := index.Lease(call, name, holder, leaseTTL)
		cancel()
		switch {
		case err == nil && mine:
			renewed = asked
		case err == nil || !time.Now().Before(expiry):
			return errLeaseLost
		}
	}
}
