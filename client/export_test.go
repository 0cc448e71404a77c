package client

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
)

// Binary is podlink's, for the examples.
func Binary() string { return binary }

// NewOver returns a client whose attempts are carried out by the carrier: a podlink in this process, for tests in virtual time.
// The carrier says by the hooks of net/http/httptrace in the context that it looks for a connection, and that it has sent the
// request, as test/kit/inproc does. Where it says nothing an attempt counts as sent, unless its error is a *net.OpError of a dial.
func NewOver(carrier grpc.ClientConnInterface, timeout time.Duration) *Client {
	return newClient(inProcess{carrier}, inProcess{carrier}, timeout, proof{}, func() error { return nil })
}

// inProcess notes how far attempts have come that no network carries.
type inProcess struct{ grpc.ClientConnInterface }

func (p inProcess) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	err := p.ClientConnInterface.Invoke(watchStage(ctx), method, request, reply, options...)
	var away *net.OpError
	if a := attemptOf(ctx); a != nil && a.stage.Load() == stageLocal && (!errors.As(err, &away) || away.Op != "dial") {
		a.stage.Store(stageSent)
	}
	return err
}

// Forget makes the router forget the link of the user.
func Forget(r *Router, uid string) { r.links.invalidate(uid) }

// Repeats reports whether only simulations run, whose seeds have to repeat exactly.
func Repeats() bool { return repeats() }
