package rdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Class is the category of an error: what a failed call means for its caller.
type Class int

// The classes. Each is a value of the label kind of podlink_store_errors_total.
const (
	Other            Class = iota // none of the others: a bug in podlink, or an unexpected error of Redis
	Unavailable                   // not executed; safe to retry
	OutcomeUnknown                // a mutation may have been sent and its reply was lost: it may or may not be executed
	Unconfirmed                   // a mutation was executed, but too few replicas confirmed it
	Full                          // not executed: Redis is out of memory
	Corrupt                       // a key holds a value that podlink did not write; it was left unchanged
	DeadlineExceeded              // a read timed out
	Canceled                      // the caller canceled the call before it was sent
)

var classNames = [...]string{
	Other: "other", Unavailable: "unavailable", OutcomeUnknown: "outcome_unknown", Unconfirmed: "unconfirmed", Full: "full",
	Corrupt: "corrupt", DeadlineExceeded: "deadline", Canceled: "canceled",
}

// String returns the class as it appears in metrics and traces.
func (c Class) String() string { return classNames[c] }

// Error is the error of a failed call: its class, and its cause for the log.
type Error struct {
	Class Class
	Cause error
}

// Error returns the text of the cause, without the class: callers map the class to an error with its own text.
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

// withClass returns err with the class. It overrides the class that err may have: the outer call knows more.
func withClass(class Class, err error) error { return &Error{Class: class, Cause: err} }

// refusals are the prefixes of error replies that mean: not executed, but a later attempt may succeed.
var refusals = []string{
	"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF",
	"NOAUTH", "WRONGPASS", "NOPERM", "MOVED", "ASK", "SHUTDOWN", "DENIED", "ERR max number of clients",
	"ERR Protocol error: unauthenticated", // the reply to a long command without a login
}

// replyError classifies an error reply of Redis. It returns nil if err is not a reply.
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
	// The error for an unknown command quotes its arguments, and with them the uid.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	return errors.New(text)
}

// aborted reports whether the ACL stopped a script, maybe after its first write: the user lost a permission after the
// self-test. The first text is that of Redis 7.0, the second that of later versions.
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

// noConnection reports whether the command failed to get a connection.
func noConnection(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout)
}

// notSentError classifies the error of a mutation that never left the process. An error reply is one to the handshake.
func notSentError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return withClass(Canceled, err)
	}
	return withClass(Unavailable, err)
}

// sentError classifies the error of a mutation that may have reached Redis. Without a reply, its outcome is unknown.
func sentError(err error) error {
	if aborted(err) {
		return withClass(OutcomeUnknown, err)
	}
	if replied := replyError(err); replied != nil {
		return replied
	}
	return withClass(OutcomeUnknown, err)
}

// unconfirmedError returns the error for a mutation that was executed, but confirmed by too few replicas.
func unconfirmedError(cause error) error {
	return withClass(Unconfirmed, fmt.Errorf("executed, but not confirmed by replicas: %w", cause))
}
