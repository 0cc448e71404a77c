package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// Binary is podlink's, for the examples.
func Binary() string { return binary }

// NewOver returns a client whose tries are carried out by the carrier: a podlink in this process, for tests in virtual time.
func NewOver(carrier grpc.ClientConnInterface, timeout time.Duration) *Client {
	open, shut := context.WithCancel(context.Background())
	return newClient(conn{carrier, timeout, open}, func() error { shut(); return nil })
}
