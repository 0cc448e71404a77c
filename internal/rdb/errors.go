package rdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Class is what a failed call means for its caller.
type Class int

// The classes. Each is a value of the label kind of podlink_store_errors_total.
const (
	Other            Class = iota // none of the others: a fault in podlink, or an error that Redis has no name for
	Unavailable                   // not executed; safe to repeat
	OutcomeUnknown                // a mutation was sent and its reply was lost: it may or may not be executed
	Unconfirmed                   // a mutation was executed, but too few replicas confirmed it
	Full                          // not executed: Redis is out of memory
	Corrupt                       // a key holds what podlink did not write; it was left as it is
	DeadlineExceeded              // a read ran out of time
	Canceled                      // the caller left before the call was sent
)

var classNames = [...]string{
	Other: "other", Unavailable: "unavailable", OutcomeUnknown: "outcome_unknown", Unconfirmed: "unconfirmed", Full: "full",
	Corrupt: "corrupt", DeadlineExceeded: "deadline", Canceled: "canceled",
}

// String returns the class as metrics and traces name it.
func (c Class) String() string { return classNames[c] }

// Error is a failed call: its class, and the cause for the log.
type Error struct {
	Class Class
	Cause error
}

// Error returns the cause's text: whoever maps the class has a better name for it.
func (e *Error) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ClassOf returns the class of an error of this package, Other for any other error.
func ClassOf(err error) Class {
	var classified *Error
	if errors.As(err, &classified) {
		return classified.Class
	}
	return Other
}

// withClass returns err with that class. It replaces a class that err has already: the outer call knows more.
func withClass(class Class, err error) error { return &Error{Class: class, Cause: err} }

// refusals are the replies by which Redis says that it has not executed a command and may later.
var refusals = []string{
	"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF",
	"NOAUTH", "WRONGPASS", "NOPERM", "MOVED", "ASK", "SHUTDOWN", "DENIED", "ERR max number of clients",
}

// replyError classifies an error that Redis itself replied; nil when err is none.
func replyError(err error) error {
	var replied redis.Error
	if !errors.As(err, &replied) {
		return nil
	}
	text := replied.Error()
	switch {
	case aborted(err):
		return withClass(Unavailable, err)
	case strings.HasPrefix(text, "NOSCRIPT"):
		return err
	case strings.HasPrefix(text, "CORRUPT"), strings.Contains(text, "WRONGTYPE"):
		return withClass(Corrupt, err)
	case strings.HasPrefix(text, "OOM"):
		return withClass(Full, err)
	}
	for _, prefix := range refusals {
		if strings.HasPrefix(text, prefix) {
			return withClass(Unavailable, err)
		}
	}
	// Redis repeats the arguments of a command that it does not know, and the uid is among them.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	return errors.New(text)
}

// aborted reports whether the ACL stopped a script, perhaps after its first write: the user lost a right after the
// self-test. Redis 7.0 says it in the first way, later versions in the second.
func aborted(err error) bool {
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
		return withClass(Canceled, err)
	case noConnection(err):
		return withClass(Unavailable, err)
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return withClass(DeadlineExceeded, err)
	default:
		return withClass(Unavailable, err)
	}
}

// noConnection reports whether a command got no connection to be sent on.
func noConnection(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout)
}

// notSentError classifies the error of a mutation that never left the process. If Redis replied at all, it refused the
// handshake.
func notSentError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return withClass(Canceled, err)
	}
	return withClass(Unavailable, err)
}

// sentError classifies the error of a mutation that may have reached Redis: without a reply its outcome is unknown.
func sentError(err error) error {
	if aborted(err) {
		return withClass(OutcomeUnknown, err)
	}
	if replied := replyError(err); replied != nil {
		return replied
	}
	return withClass(OutcomeUnknown, err)
}

// unconfirmedError is the failure of a mutation that was executed without enough confirmations.
func unconfirmedError(cause error) error {
	return withClass(Unconfirmed, fmt.Errorf("executed, but not confirmed by replicas: %w", cause))
}
