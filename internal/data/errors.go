package data

import (
	"fmt"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// domainError returns the domain's error for a failed call of the store; the cause stays attached, for the log.
func domainError(err error) error {
	if err == nil {
		return nil
	}
	switch rdb.ClassOf(err) {
	case rdb.Unavailable:
		return wrap(biz.ErrStoreUnavailable, err)
	case rdb.OutcomeUnknown:
		return wrap(biz.ErrOutcomeUnknown, err)
	case rdb.Full:
		return wrap(biz.ErrStoreFull, err)
	case rdb.Corrupt:
		return wrap(biz.ErrStoreDataCorrupt, err)
	case rdb.DeadlineExceeded:
		return wrap(biz.ErrDeadlineExceeded, err)
	case rdb.Canceled:
		return wrap(biz.ErrCanceled, err)
	default: // rdb.Other; and rdb.Unconfirmed is no error of a call, but part of its reply.
		return err
	}
}

func wrap(class, err error) error { return fmt.Errorf("%w: %w", class, err) }

// unconfirmed returns the error for a mutation that replicas have not confirmed, nil when they have; link is what stands
// after a mutation of one.
func unconfirmed(reply rdb.Reply, link *biz.Link) error {
	if reply.Unconfirmed == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", reply.Script, &biz.UnconfirmedError{Link: link, Cause: reply.Unconfirmed})
}
