package client

import (
	"context"
	"net/url"
	"strings"

	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// UIDFunc tells which user a request is about; empty: none. It has to be the same on the side of the caller, in
// RouterOptions, and on the side of the pod, in AgentOptions.
type UIDFunc func(ctx context.Context, request any) string

// Field is the UIDFunc of requests that name the user in a field of that name, a string, as in the proto file. A request
// without such a field is about no user.
func Field(name string) UIDFunc {
	return func(ctx context.Context, request any) string {
		message, ok := request.(proto.Message)
		if !ok {
			return fieldOfURL(ctx, name)
		}
		reflected := message.ProtoReflect()
		field := reflected.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return fieldOfURL(ctx, name)
		}
		if field.Kind() != protoreflect.StringKind || field.IsList() {
			return ""
		}
		return reflected.Get(field).String()
	}
}

// fieldOfURL is the field of a request that a Kratos client has put into the URL: over HTTP it shows a middleware only what
// goes into the body.
func fieldOfURL(ctx context.Context, name string) string {
	t, _ := transport.FromClientContext(ctx)
	over, ok := t.(*khttp.Transport)
	if !ok {
		return ""
	}
	names, values := strings.Split(over.PathTemplate(), "/"), strings.Split(over.Request().URL.EscapedPath(), "/")
	for i := range min(len(names), len(values)) {
		// A verb may follow, as in /users/{uid}:greet.
		if _, verb, ok := strings.Cut(names[i], "{"+name+"}"); ok {
			value, err := url.PathUnescape(strings.TrimSuffix(values[i], verb))
			if err != nil {
				return ""
			}
			return value
		}
	}
	query := over.Request().URL.Query()
	if query.Has(name) {
		return query.Get(name)
	}
	return query.Get(jsonName(name))
}

// jsonName is the name that JSON, and so a query, has for a field.
func jsonName(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		if words[i] != "" {
			words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
		}
	}
	return strings.Join(words, "")
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
	sent := t.RequestHeader().Get(uidHeader)
	uid, err := url.PathUnescape(sent)
	if err != nil {
		return sent // No router has sent this. It is a user all the same, and nobody's.
	}
	return uid
}
