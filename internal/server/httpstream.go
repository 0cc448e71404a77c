package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-kratos/kratos/v2/transport"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

const (
	// lastEventID is the header in which browsers say where a stream of events goes on.
	lastEventID = "Last-Event-ID"
	// resumeField is the field of a request that has the same.
	resumeField protoreflect.Name = "resume_token"
)

// streamRoutes registers the streams of services as routes that answer server-sent events or JSON lines. Kratos' plugin makes no routes
// for them, and its own ones have the timeout of requests.
type streamRoutes struct {
	srv   *khttp.Server
	chain *Chain
	drain *Drain
}

// RegisterService implements grpc.ServiceRegistrar.
func (e streamRoutes) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for i := range desc.Streams {
		name := protoreflect.FullName(desc.ServiceName + "." + desc.Streams[i].StreamName)
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			continue // A service of a test, which has no proto.
		}
		method := found.(protoreflect.MethodDescriptor)
		rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		if path := rule.GetGet(); path != "" {
			e.srv.Route("/").GET(path, e.handler(method, desc.Streams[i].Handler, impl))
		}
	}
}

// handler returns the handler of a stream. It serves the stream through the chain, as gRPC does.
func (e streamRoutes) handler(method protoreflect.MethodDescriptor, handle grpc.StreamHandler, impl any) khttp.HandlerFunc {
	operation, form := v1.Operation(method), formOf(method)
	return func(c khttp.Context) error {
		khttp.SetOperation(c.Request().Context(), operation)
		t, _ := transport.FromServerContext(c.Request().Context()) // Kratos always sets it.
		d := decodingFrom(c.Request().Context())
		// The context of the request ends after its timeout, the one that it was decoded in does not.
		ctx, cancel := context.WithCancelCause(transport.NewServerContext(d, t))
		defer cancel(nil)
		s := &httpStream{
			call: c, chain: e.chain, decoding: d, operation: operation, form: form, control: http.NewResponseController(c.Response()),
		}
		go supervise(ctx, cancel, e.drain, s.review)
		err := e.chain.serve(ctx, t, streamCall, &messages{}, func(ctx context.Context) error {
			s.ctx = ctx
			return streamError(ctx, e.drain, handle(impl, s))
		})
		if err == nil || !s.begun {
			return err
		}
		s.end(err)
		return nil
	}
}

// httpStream is a grpc.ServerStream whose messages are parts of an HTTP reply.
type httpStream struct {
	ctx       context.Context //nolint:containedctx // A grpc.ServerStream has its context.
	call      khttp.Context
	chain     *Chain
	decoding  *decoding
	operation string
	form      *streamForm
	control   *http.ResponseController
	request   atomic.Pointer[proto.Message] // what was authorized
	begun     bool                          // a part of the reply was sent
	buffer    bytes.Buffer
}

// Context implements grpc.ServerStream.
func (s *httpStream) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream. Messages over HTTP have no metadata.
func (*httpStream) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream.
func (*httpStream) SendHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream.
func (*httpStream) SetTrailer(metadata.MD) {}

// RecvMsg implements grpc.ServerStream. It decodes the request, and decides whether the caller may have the stream.
func (s *httpStream) RecvMsg(target any) error {
	request := target.(proto.Message)
	_, _ = s.call.BindQuery(request), s.call.BindVars(request) // The decoding has their errors.
	if s.decoding.err != nil {
		return s.decoding.err
	}
	if err := s.resume(request.ProtoReflect()); err != nil {
		return err
	}
	if err := s.chain.authorize(s.ctx, s.operation, s.decoding, request); err != nil {
		return err
	}
	_, from := httpPeer(s.decoding, s.call.Request())
	if err := s.chain.watches.take(s.ctx, s.operation, s.decoding.caller, from); err != nil {
		return err
	}
	s.request.Store(&request)
	// The connection has deadlines for a request. This one lasts, and only reading the connection shows when its caller leaves.
	_ = errors.Join(s.control.SetReadDeadline(time.Time{}), s.control.SetWriteDeadline(time.Time{}))
	return nil
}

// resume lets the last event that the caller has got count more than the token of its request: a browser repeats the request as it was.
func (s *httpStream) resume(request protoreflect.Message) error {
	field := request.Descriptor().Fields().ByName(resumeField)
	last := s.call.Request().Header.Values(lastEventID)
	switch {
	case field == nil || !s.form.resumes || len(last) == 0 || len(last) == 1 && last[0] == "":
		return nil
	case len(last) > 1:
		return invalid(lastEventID, "appears twice")
	}
	request.Set(field, protoreflect.ValueOfString(strings.ToValidUTF8(last[0], "?")))
	return nil
}

// review returns why the caller may no longer have the stream.
func (s *httpStream) review() error {
	access, request := s.chain.access, s.request.Load()
	if access == nil || request == nil {
		return nil
	}
	c := new(caller)
	c.Context = s.decoding.Context
	return access.review(c, access.proofHTTP(c, s.call.Request()), s.operation, *request)
}

// SendMsg implements grpc.ServerStream. A caller that does not take the message in time has left.
func (s *httpStream) SendMsg(message any) error {
	if err := revoked(s.ctx); err != nil {
		return err
	}
	text, err := jsonOf(message)
	if err != nil {
		return service.Internal(err)
	}
	token := ""
	if m, ok := message.(interface{ GetToken() string }); ok {
		token = m.GetToken()
	}
	return s.write(func(b *bytes.Buffer) { s.form.message(b, token, text) })
}

func jsonOf(message any) ([]byte, error) {
	if shared, ok := message.(*service.SharedReply); ok {
		return shared.Encoded(service.JSON, func(m proto.Message) ([]byte, error) { return appendJSON(nil, m) })
	}
	return appendJSON(nil, message)
}

// end says in a last message why the stream ends.
func (s *httpStream) end(err error) {
	if errors.Is(err, biz.ErrCanceled) {
		return // The caller has left.
	}
	if text, err := json.Marshal(errorBodyOf(service.PublicError(err))); err == nil {
		_ = s.write(func(b *bytes.Buffer) { s.form.failure(b, text) })
	}
}

// write writes what fill has put into the buffer, and the first time the header.
func (s *httpStream) write(fill func(b *bytes.Buffer)) error {
	s.buffer.Reset()
	if !s.begun {
		s.begun = true
		header := s.call.Response().Header()
		header.Set("Content-Type", s.form.contentType)
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no") // Else some proxies keep messages back.
		s.form.begin(&s.buffer)
	}
	fill(&s.buffer)
	err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = s.call.Response().Write(s.buffer.Bytes())
	}
	if err == nil {
		err = s.control.Flush()
	}
	if err == nil {
		err = s.control.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("%w: %w", biz.ErrCanceled, err)
	}
	return nil
}
