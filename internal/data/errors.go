package data

import (
	"fmt"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// domainError maps an error of the store to the error of the domain. The cause stays attached for the log.
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
	default: // rdb.Other. rdb.Unconfirmed is not returned as an error, but in Reply.Unconfirmed.
		return err
	}
}

func wrap(class, err error) error { return fmt.Errorf("%w: %w", class, err) }

// unconfirmed returns the error for a mutation that replicas have not confirmed, nil if they have. link is the link after
// the mutation, nil if the mutation was not of a link.
func unconfirmed(reply rdb.Reply, link *biz.Link) error {
	if reply.Unconfirmed == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", reply.Script, &biz.UnconfirmedError{Link: link, Cause: reply.Unconfirmed})
}
