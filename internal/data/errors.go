package data

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"podlink/internal/biz"
)

// unavailable are the replies by which Redis says that it has not carried out a command and may later.
var unavailable = []string{
	"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF",
	"NOAUTH", "WRONGPASS", "NOPERM", "MOVED", "ASK", "SHUTDOWN", "DENIED", "ERR max number of clients",
}

// replyError classifies an error that Redis itself replied; nil when err is not one.
func replyError(err error) error {
	var replied redis.Error
	if !errors.As(err, &replied) {
		return nil
	}
	text := replied.Error()
	switch {
	case stopped(err):
		return wrap(biz.ErrStoreUnavailable, err)
	case strings.HasPrefix(text, "NOSCRIPT"):
		return err
	case strings.HasPrefix(text, "CORRUPT"), strings.Contains(text, "WRONGTYPE"):
		return wrap(biz.ErrStoreDataCorrupt, err)
	case strings.HasPrefix(text, "OOM"):
		return wrap(biz.ErrStoreFull, err)
	}
	for _, prefix := range unavailable {
		if strings.HasPrefix(text, prefix) {
			return wrap(biz.ErrStoreUnavailable, err)
		}
	}
	// Redis repeats the arguments of a command that it does not know, and among them is the uid.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	return errors.New(text)
}

// stopped tells that the ACL has stopped a script, maybe after its first write: the user has lost a right since the
// self-test. Redis 7.0 says it in the first way, later ones in the second.
func stopped(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "The user executing the script can't") ||
		strings.Contains(err.Error(), "ACL failure in script"))
}

// readError classifies the error of a read.
func readError(ctx context.Context, err error) error {
	if replied := replyError(err); replied != nil {
		return replied
	}
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return wrap(biz.ErrCanceled, err)
	case noConnection(err):
		return wrap(biz.ErrStoreUnavailable, err)
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return wrap(biz.ErrDeadlineExceeded, err)
	default:
		return wrap(biz.ErrStoreUnavailable, err)
	}
}

// noConnection tells errors of a command that got no connection to be sent on.
func noConnection(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout)
}

// notSentError classifies the error of a mutation that never left the process: whatever was replied, it was the handshake
// that was refused.
func notSentError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return wrap(biz.ErrCanceled, err)
	}
	return wrap(biz.ErrStoreUnavailable, err)
}

// sentError classifies the error of a mutation that may have reached Redis: without a reply its outcome is unknown.
func sentError(err error) error {
	if stopped(err) {
		return wrap(biz.ErrOutcomeUnknown, err)
	}
	if replied := replyError(err); replied != nil {
		return replied
	}
	return wrap(biz.ErrOutcomeUnknown, err)
}

// wrap gives err the class that callers see; err itself is for the log.
func wrap(class, err error) error { return fmt.Errorf("%w: %w", class, err) }
