package server

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"
)

// decoding is the context of a request being decoded. It carries the first error to the middleware chain: why the request is
// refused before it is decoded, or can't be decoded.
type decoding struct {
	context.Context //nolint:containedctx // It is a context with one more value.

	err  error
	body []byte // of an HTTP request

	access *Access // nil: no call has a price
	caller *caller
	price  *price // what was paid for the call
}

type decodingKey struct{}

// withDecoding returns ctx with a new decoding, and that decoding.
func withDecoding(ctx context.Context) (context.Context, *decoding) {
	d := &decoding{Context: ctx}
	return d, d
}

// Value implements context.Context.
func (d *decoding) Value(key any) any {
	if key == (decodingKey{}) {
		return d
	}
	return d.Context.Value(key)
}

// decodingFrom returns the decoding in ctx; an empty one outside podlink's listeners.
func decodingFrom(ctx context.Context) *decoding {
	if d, ok := ctx.Value(decodingKey{}).(*decoding); ok {
		return d
	}
	return &decoding{Context: ctx}
}

func (d *decoding) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// admit makes the call of c, who was authenticated or not, the context of the request.
func (d *decoding) admit(access *Access, c *caller, err error) {
	d.Context, d.access, d.caller = &c.Call, access, c
	d.fail(err)
}

// pay takes what is known of the call's price from its caller's rate, once.
func (d *decoding) pay(p *price) {
	if d.err == nil && d.price == nil {
		d.price = p
		d.fail(d.access.rates.take(d.caller, p, p.base, d.caller.at))
	}
}

// unrouted returns the error of a request that matches no operation: err, unless its caller is refused. So a caller that is not known
// learns nothing about paths.
func (d *decoding) unrouted(err error) error {
	if d.access == nil {
		return err
	}
	d.pay(unknownPrice)
	return cmp.Or(d.err, err)
}

// payRest takes the part of the price that is known when the request is decoded.
func (d *decoding) payRest(request any) error {
	if d.price == nil || d.price.entries == nil {
		return nil
	}
	return d.access.rates.take(d.caller, d.price, d.price.rest(request.(proto.Message)), d.access.rates.now())
}
