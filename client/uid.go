package client

import (
	"context"
	"net/url"

	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// UIDFunc tells which user a request is about; empty: none. It has to be the same on the side of the caller, in
// RouterOptions, and on the side of the pod, in AgentOptions.
type UIDFunc func(ctx context.Context, request any) string

// Field is the UIDFunc of requests that name the user in a field of that name, a string, as in the proto file. A request
// without such a field is about no user.
func Field(name string) UIDFunc {
	return func(_ context.Context, request any) string {
		message, ok := request.(proto.Message)
		if !ok {
			return ""
		}
		reflected := message.ProtoReflect()
		field := reflected.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
			return ""
		}
		return reflected.Get(field).String()
	}
}

// uidHeader carries the uid to the pod where no UIDFunc finds it in the request: percent-encoded, for a header can't hold
// every uid. As Kratos metadata that is local it goes no further than to the pod.
const uidHeader = "x-md-local-podlink-uid"

type uidKey struct{}

// WithUID returns a context whose calls are about the user. It is for a Router without a UIDFunc, which sends the uid to the
// pod in a header.
func WithUID(ctx context.Context, uid string) context.Context {
	return context.WithValue(ctx, uidKey{}, uid)
}

// sendUID is the UIDFunc of a Router that was given none.
func sendUID(ctx context.Context, _ any) string {
	uid, _ := ctx.Value(uidKey{}).(string)
	if t, ok := transport.FromClientContext(ctx); ok && uid != "" {
		t.RequestHeader().Set(uidHeader, url.PathEscape(uid))
	}
	return uid
}

// receiveUID is the UIDFunc of a Guard that was given none.
func receiveUID(ctx context.Context, _ any) string {
	t, ok := transport.FromServerContext(ctx)
	if !ok {
		return ""
	}
	uid, err := url.PathUnescape(t.RequestHeader().Get(uidHeader))
	if err != nil {
		return ""
	}
	return uid
}
