package client

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// UIDFunc returns the user whom a request is about; empty: none. A caller has it in RouterOptions and a pod in AgentOptions, and
// both must find the same user in a request: a Guard refuses what its own function does not find.
//
// The guard of a stream calls it when the stream opens, with a nil request, and with each message that arrives. A pod refuses a
// request at which it panics.
type UIDFunc func(ctx context.Context, request any) string

// Field is the UIDFunc of requests that name the user in a field of that name, a string at the top of the message, as in the proto
// file. A request without such a field is about no user.
//
// It finds the user that the pod's handler gets: of a call over HTTP what is in the path goes before what is in the body.
func Field(name string) UIDFunc {
	field := protoreflect.Name(name)
	return func(ctx context.Context, request any) string {
		message, _ := request.(proto.Message)
		if sent, ok := transport.FromClientContext(ctx); ok {
			if over, ok := sent.(*khttp.Transport); ok {
				return sentField(over, field, message)
			}
		}
		return stringField(message, field)
	}
}

// stringField returns the field of a message; empty: there is none.
func stringField(message proto.Message, name protoreflect.Name) string {
	if message == nil {
		return ""
	}
	reflected := message.ProtoReflect()
	field := reflected.Descriptor().Fields().ByName(name)
	if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
		return ""
	}
	return reflected.Get(field).String()
}

// sentField returns the field of a request that a Kratos client sends over HTTP. A middleware gets only its body, which is the
// request, a field of it, or nothing; what else the pod gets is in the URL.
func sentField(over *khttp.Transport, name protoreflect.Name, body proto.Message) string {
	if value, ok := pathValue(over.PathTemplate(), over.Request().URL.EscapedPath(), string(name)); ok {
		return value
	}
	inQuery := jsonName(string(name))
	if request := requestOf(over.Operation()); request != nil {
		field := request.Fields().ByName(name)
		if field == nil || body != nil && body.ProtoReflect().Descriptor().FullName() != request.FullName() {
			return "" // A field of that name in the body is not the request's.
		}
		inQuery = field.JSONName()
	}
	if body != nil {
		return stringField(body, name)
	}
	query := over.Request().URL.Query()
	if query.Has(string(name)) {
		return query.Get(string(name))
	}
	return query.Get(inQuery)
}

// requestOf describes the request of an operation, as in /chat.v1.Chat/Say; nil: unknown.
func requestOf(operation string) protoreflect.MessageDescriptor {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(operation, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil
	}
	if method, ok := found.(protoreflect.MethodDescriptor); ok {
		return method.Input()
	}
	return nil
}

// pathValue returns what stands in a path for a variable of its template. More may follow, as in /users/{uid}:greet.
func pathValue(template, path, name string) (value string, ok bool) {
	names, values := strings.Split(template, "/"), strings.Split(path, "/")
	for i := range min(len(names), len(values)) {
		before, after, found := strings.Cut(names[i], "{"+name+"}")
		if !found {
			continue
		}
		value, err := url.PathUnescape(strings.TrimSuffix(strings.TrimPrefix(values[i], before), after))
		return value, err == nil
	}
	return "", false
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
		return sent // No router has sent this: podlink has no link of such a user.
	}
	return uid
}

// maxUID is how many bytes a uid may have.
const maxUID = 256

// checkUID is the error of a uid that podlink would refuse. What is as long as a caller likes is not sent to podlink.
func checkUID(uid string) error {
	if uid == "" || len(uid) > maxUID || !utf8.ValidString(uid) || strings.ContainsFunc(uid, unicode.IsControl) {
		return malformed("uid", fmt.Sprintf("must be 1 to %d bytes of valid UTF-8 without control characters", maxUID))
	}
	return nil
}

// uidRequired is ErrUIDRequired with what is wrong, and the operation.
func uidRequired(operation, wrong string) error {
	refusal := kerrors.Clone(kerrors.FromError(ErrUIDRequired))
	refusal.Message = fmt.Sprintf("%s, and the operation %q is not one of AgentOptions.Public", wrong, operation)
	return refusal
}

// uidMismatch is ErrUIDMismatch with the operation. other is the user in the second place; empty: there is none.
func uidMismatch(operation, other string) error {
	refusal := kerrors.Clone(kerrors.FromError(ErrUIDMismatch))
	refusal.Message = fmt.Sprintf("the request of operation %q names two users", operation)
	if other == "" {
		refusal.Message = fmt.Sprintf("the request of operation %q names a user, but AgentOptions.Match finds none in it", operation)
	}
	return refusal
}
