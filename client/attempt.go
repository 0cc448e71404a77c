package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// maxRequestBytes is the largest request that podlink takes.
const maxRequestBytes = 1 << 20

// repeatable is the option of a call of a mutation that does no harm when it is carried out twice: the client repeats it until
// its outcome is certain.
var repeatable grpc.CallOption = repeatableOption{}

type repeatableOption struct{ grpc.EmptyCallOption }

func isRepeatable(options []grpc.CallOption) bool {
	return slices.ContainsFunc(options, func(option grpc.CallOption) bool { _, ok := option.(repeatableOption); return ok })
}

// uncertain reports whether a mutation may have been carried out, or may be lost again.
func uncertain(err error) bool {
	return errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrReplicationUnconfirmed)
}

// stage is how far an attempt has come.
type stage = int32

const (
	stageLocal   stage = iota // The request is still being made.
	stageSeeking              // The request needs a connection. Only HTTP has this stage.
	stageSent                 // The request may have left this process.
)

// attempt is one request of a call.
type attempt struct {
	reads      bool // It changes nothing.
	repeatable bool // It does no harm when it is carried out twice.

	stage    atomic.Int32
	token    atomic.Pointer[string] // what it sends, or has sent, of Options.TokenFile or Token; nil: nothing
	unproven atomic.Bool            // It was not sent, for its credentials could not be had.
	err      error
}

type attemptKey struct{}

// attemptOf returns the attempt that the context is for; nil if there is none.
func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

func (a *attempt) sent() bool { return a.stage.Load() == stageSent }

// invoke carries out the attempts of a call: one, and more where that is safe, may help, and is within the budget and ctx.
func (c conn) invoke(ctx, caller context.Context, method string, request, reply any, options []grpc.CallOption) error {
	var (
		between *backoff.ExponentialBackOff
		last    *attempt
		doubt   error  // why the mutation may have been carried out by an attempt that was repeated
		fresh   string // the token instead of the one that was refused
	)
	for {
		a := &attempt{reads: operations[method].reads, repeatable: isRepeatable(options)}
		if token := fresh; token != "" {
			a.token.Store(&token)
		}
		a.err = c.ClientConnInterface.Invoke(context.WithValue(ctx, attemptKey{}, a), method, request, reply, options...)
		if a.err == nil {
			return nil
		}
		if !a.sent() && last != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			a = last // An attempt without the time to be sent has learned nothing about podlink.
		}
		last = a
		again, err := a.classify(caller, request.(proto.Message))
		if uncertain(err) {
			doubt = err
		}
		if token := c.proof.renew(ctx, a, fresh != ""); token != "" {
			fresh = token
			continue // Nothing was carried out.
		}
		err = c.proof.explain(a, err)
		if !again || c.retries == nil {
			return settled(err, doubt)
		}
		if between == nil {
			between = pauses()
		}
		if a.reached() {
			again = c.retries.wait(ctx, retryAfter(err), between)
		} else { // Nothing was sent: it is no request.
			again = pause(ctx, between.NextBackOff())
		}
		if !again {
			if errors.Is(caller.Err(), context.Canceled) && !uncertain(err) {
				err = withCause(ErrCanceled, caller.Err())
			}
			return settled(err, doubt)
		}
	}
}

// settled is the error of a call whose last attempt had that error. An earlier attempt of a mutation that may have been carried
// out leaves its doubt, unless podlink has looked at the link since then.
func settled(err, doubt error) error {
	if doubt == nil {
		return err
	}
	for _, answer := range []error{ErrEpochMismatch, ErrSuperseded, ErrLimitExceeded, ErrNoAvailablePod} {
		if errors.Is(err, answer) {
			return err
		}
	}
	return doubt
}

// reached reports whether the request has arrived anywhere, or may have.
func (a *attempt) reached() bool { return a.sent() || isPodlinks(kerrors.FromError(a.err)) }

// classify says what the error of an attempt means to the caller, and whether another attempt is safe and may help.
func (a *attempt) classify(caller context.Context, request proto.Message) (again bool, meaning error) {
	cause, why, wasSent := kerrors.FromError(a.err), errors.Join(caller.Err(), a.err), a.sent()
	switch {
	case !wasSent && errors.Is(caller.Err(), context.Canceled):
		return false, withCause(ErrCanceled, why)
	case cause.Reason == reasonNotReady:
		return true, withCause(ErrUnavailable, why)
	case isPodlinks(cause):
		return a.repeats(cause), withCause(atDeclaredCode(cause), errors.Join(caller.Err(), cause.Unwrap()))
	case wasSent && !a.reads && !provesUnseen(cause):
		return a.repeatable, withCause(ErrOutcomeUnknown, why)
	case errors.Is(caller.Err(), context.Canceled):
		return false, withCause(ErrCanceled, why)
	case !wasSent && noInstance(cause):
		return true, withCause(ErrUnavailable, why)
	}
	if !wasSent {
		if err := a.unsendable(request); err != nil {
			return false, withCause(err, why)
		}
	}
	switch {
	case refused(cause):
		return false, withCause(cause, caller.Err())
	case wasSent && late(a.err, cause):
		return true, withCause(ErrDeadlineExceeded, why)
	}
	return true, withCause(ErrUnavailable, why)
}

// repeats reports whether the attempt may be repeated after podlink has answered so.
func (a *attempt) repeats(answer *kerrors.Error) bool {
	switch v1.ErrorReason(v1.ErrorReason_value[answer.Reason]) {
	case v1.ErrorReason_STORE_UNAVAILABLE:
		return true
	case v1.ErrorReason_RATE_LIMITED:
		return retryAfter(answer) > 0
	case v1.ErrorReason_DEADLINE_EXCEEDED:
		return a.reads
	case v1.ErrorReason_OUTCOME_UNKNOWN, v1.ErrorReason_REPLICATION_UNCONFIRMED:
		return a.repeatable
	default:
		return false
	}
}

// retryAfter is how long podlink wants the caller to wait before it repeats a call; 0: it has not said.
func retryAfter(err error) time.Duration {
	if !errors.Is(err, ErrRateLimited) {
		return 0
	}
	ms, _ := strconv.ParseInt(kerrors.FromError(err).Metadata[metadataRetryAfter], 10, 32)
	return max(0, time.Duration(ms)*time.Millisecond)
}

// reasonNotReady is podlink's while it can't decide who calls. Nothing was carried out.
const reasonNotReady = "NOT_READY"

// metadataRetryAfter is in the metadata of ErrRateLimited.
const metadataRetryAfter = "retry_after_ms"

// isPodlinks reports whether the error is an answer of podlink's. Every one of them has a reason.
func isPodlinks(err *kerrors.Error) bool {
	_, ok := reasonCodes[err.Reason]
	return ok
}

// atDeclaredCode returns an error of podlink's with the code that belongs to its reason. HTTP tells the code a second time, in the
// status, which a proxy may have changed.
func atDeclaredCode(err *kerrors.Error) *kerrors.Error {
	if code := reasonCodes[err.Reason]; err.Code != code {
		err = kerrors.Clone(err)
		err.Code = code
	}
	return err
}

// unseenCodes are the codes of answers that are not podlink's, and prove all the same that podlink never got a mutation. All other
// ones prove nothing: a proxy may have passed the request on and then answered for itself. gRPC has the first, 404 (NOT_FOUND) and
// 501 (UNIMPLEMENTED) of them.
var unseenCodes = map[int32]bool{
	http.StatusUnauthorized:                true, // By its definition the request was not applied: it lacks credentials.
	http.StatusProxyAuthRequired:           true, // The same, for the proxy itself.
	http.StatusNotFound:                    true, // There is no such path, so nothing is behind it. Podlink would say so with a reason.
	http.StatusMethodNotAllowed:            true, // The path has no such method: the same.
	http.StatusRequestEntityTooLarge:       true, // The body was not read to its end, and podlink carries out only what it has read.
	http.StatusRequestURITooLong:           true, // The request's first line was refused, and the rest not read.
	http.StatusRequestHeaderFieldsTooLarge: true, // The request's headers were refused: the same.
	http.StatusUnsupportedMediaType:        true, // Whoever answers does not understand the body.
	http.StatusNotImplemented:              true, // Whoever answers has no such method.
}

func provesUnseen(err *kerrors.Error) bool { return unseenCodes[err.Code] }

// refused reports whether something between has turned the call away, in a way that does not change by itself.
func refused(err *kerrors.Error) bool {
	switch err.Code {
	case http.StatusRequestTimeout, statusClientClosed:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return err.Code >= 300 && err.Code < 500
}

// statusClientClosed is the code of gRPC's CANCELED in Kratos.
const statusClientClosed = 499

// late reports whether an attempt has run out of time.
func late(err error, cause *kerrors.Error) bool {
	return cause.Code == http.StatusGatewayTimeout || cause.Code == http.StatusRequestTimeout || errors.Is(err, context.DeadlineExceeded)
}

// noInstance reports whether a Kratos client has found no instance to call: over gRPC, or over HTTP. Whoever serves the call may
// have passed on the same reason, so it means something only of what was not sent.
func noInstance(err *kerrors.Error) bool {
	return err.Reason == selector.ErrNoAvailable.Reason || err.Reason == "NODE_NOT_FOUND"
}

// unsendable returns what is wrong with a request that was not sent and can't be, on any connection; nil if nothing is.
func (a *attempt) unsendable(request proto.Message) error {
	if request != nil {
		if field := notText(request); field != "" {
			return malformed(field, "must be valid UTF-8")
		}
		if size := proto.Size(request); size > maxRequestBytes {
			return tooLarge(size)
		}
	}
	var overHTTP *url.Error
	switch {
	case status.Code(a.err) == codes.Internal: // gRPC has no other use for it before something is sent.
	case errors.As(a.err, &overHTTP) && a.stage.Load() == stageLocal && !overHTTP.Timeout() && !errors.Is(a.err, context.Canceled):
	default:
		return nil
	}
	return v1.ErrorInvalidArgument("the request can't be sent: it can't be encoded, or its headers are too large or not valid")
}

// tooLarge is the error of a request that podlink would not read.
func tooLarge(size int) error {
	return v1.ErrorInvalidArgument("the request has %d bytes, podlink takes %d", size, maxRequestBytes)
}
