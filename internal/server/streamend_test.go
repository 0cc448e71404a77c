package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/service"
)

// changingDoor is an authenticator and a policy that change their mind.
type changingDoor struct {
	fixedRates

	expired, denied, away atomic.Bool
}

// Authenticate implements Authenticator.
func (d *changingDoor) Authenticate(ctx context.Context, proof auth.Proof) (auth.Identity, error) {
	switch {
	case d.expired.Load():
		return auth.Identity{}, &auth.RefusedError{Cause: auth.Expired}
	case d.away.Load():
		return auth.Identity{}, &auth.RefusedError{Cause: auth.NoKeys}
	}
	return guests{}.Authenticate(ctx, proof)
}

// Ready implements Authenticator.
func (*changingDoor) Ready() error { return nil }

// Decide implements Policy.
func (d *changingDoor) Decide(who auth.Identity, need auth.Need) (auth.Grant, error) {
	if d.denied.Load() || need.Service != "svc" {
		return auth.Grant{Right: need.Right}, auth.ErrDenied
	}
	return d.fixedRates.Decide(who, need)
}

// TestWatchIsReviewed: a stream ends soon after its caller has lost its right, or its proof no longer counts.
func TestWatchIsReviewed(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*changingDoor)
		reason v1.ErrorReason
		code   codes.Code
	}{
		{"the policy has changed", func(d *changingDoor) { d.denied.Store(true) }, v1.ErrorReason_PERMISSION_DENIED, codes.PermissionDenied},
		{"the token has expired", func(d *changingDoor) { d.expired.Store(true) }, v1.ErrorReason_UNAUTHENTICATED, codes.Unauthenticated},
		{"the token can't be checked", func(d *changingDoor) { d.away.Store(true) }, v1.ErrorReason_NOT_READY, codes.Unavailable},
	} {
		for over, open := range watchOver {
			t.Run(row.name+" over "+over, func(t *testing.T) {
				door := new(changingDoor)
				w := serveWatches(t, NewAccess(door, door, 1e6, nil))
				stream := open(t, w, "chat", &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"})
				_, err := stream.next()
				require.NoError(t, err)
				row.change(door)
				_, err = stream.next()
				if over == "grpc" {
					require.Equal(t, row.code, status.Code(err), err)
				} else {
					require.EqualError(t, err, row.reason.String())
				}
			})
		}
	}
}

// TestWatchIsAuthorized: a watch of a service that the policy does not allow never begins.
func TestWatchIsAuthorized(t *testing.T) {
	door := new(changingDoor)
	w := serveWatches(t, NewAccess(door, door, 1e6, nil))
	stream, err := v1.NewFleetServiceClient(w.conn).WatchLinks(as(t, "chat"), &v1.WatchLinksRequest{Namespace: "ns", Service: "other"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	code, _, body := ask(t, w.url, http.MethodGet, "/v1/namespaces/ns/services/other/links:watch", "Bearer chat")
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "PERMISSION_DENIED")
}

// TestStreamError: who ends a stream decides what its caller is told, whatever the handler says.
func TestStreamError(t *testing.T) {
	failure, left := errors.New("a failure"), fmt.Errorf("%w: gone", biz.ErrCanceled)
	open, draining := NewDrain(newParts(t).config), NewDrain(&conf.Server{})
	require.NoError(t, draining.Run(t.Context()))
	ended := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		return ctx
	}
	refusal := v1.ErrorPermissionDenied("no longer")
	for _, row := range []struct {
		name   string
		ctx    context.Context //nolint:containedctx // It is what differs between the rows.
		drain  *Drain
		err    error
		reason v1.ErrorReason
		text   string
	}{
		{"a failure", t.Context(), open, failure, v1.ErrorReason_INTERNAL, "internal error"},
		{"a failure during a drain", t.Context(), draining, failure, v1.ErrorReason_INTERNAL, "internal error"},
		{"the caller has left", ended(nil), open, failure, v1.ErrorReason_CANCELED, "the caller left"},
		{"a drain", ended(errDraining), draining, failure, v1.ErrorReason_CANCELED, "podlink is stopping"},
		{"a drain of which the handler has heard first", t.Context(), draining, left, v1.ErrorReason_CANCELED, "podlink is stopping"},
		{"a refusal", ended(&revokedError{refusal}), draining, left, v1.ErrorReason_PERMISSION_DENIED, "no longer"},
	} {
		public := service.PublicError(streamError(row.ctx, row.drain, row.err))
		require.Equal(t, row.reason.String(), public.Reason, row.name)
		require.Contains(t, public.Message, row.text, row.name)
		require.NoError(t, streamError(row.ctx, row.drain, nil), row.name)
	}
}
