package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

const operationTalk = "/chat.v1.Chat/Talk"

// serverStream is the server's side of a stream whose client is the test. It ends with its context.
type serverStream struct {
	grpc.ServerStream

	ctx      context.Context //nolint:containedctx // It is a stream's.
	arriving chan proto.Message
	sent     []any
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) SendMsg(m any) error {
	s.sent = append(s.sent, m)
	return nil
}

func (s *serverStream) RecvMsg(m any) error {
	select {
	case message, open := <-s.arriving:
		if !open {
			return io.EOF
		}
		proto.Merge(m.(proto.Message), message)
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// stream opens a stream at the guard, whose client sends nothing until the test does. It returns the stream's end.
func (w *guardWorld) open(ctx context.Context, header header, handler grpc.StreamHandler) (*serverStream, <-chan error) {
	ctx, cancel := context.WithCancel(transport.NewServerContext(ctx, operationCall{&call{header}, operationTalk}))
	s := &serverStream{ctx: ctx, arriving: make(chan proto.Message, 10)}
	ended := make(chan error, 1)
	go func() {
		defer cancel() // As gRPC does when the handler has returned.
		ended <- w.stream(nil, s, &grpc.StreamServerInfo{FullMethod: operationTalk}, handler)
	}()
	return s, ended
}

func of(uid string) header {
	h := header{}
	h.Set(uidHeader, uid)
	return h
}

// receives reads until the stream ends.
func receives(_ any, stream grpc.ServerStream) error {
	for {
		if err := stream.RecvMsg(new(v1.SetWorkloadStateRequest)); err != nil {
			return err
		}
	}
}

// waits does nothing until the stream ends.
func waits(_ any, stream grpc.ServerStream) error {
	<-stream.Context().Done()
	return nil
}

func byHeader(o *guardOptions) { o.uid = nil }

func noEnd(t *testing.T, ended <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-ended:
		require.Fail(t, "the stream has ended", err)
	default:
	}
}

// TestStreamGuard: a stream is refused before the handler runs, or gets the message that names the user.
func TestStreamGuard(t *testing.T) {
	for name, row := range map[string]struct {
		how      func(o *guardOptions)
		header   header
		messages []string // the users that they name
		want     error
		handled  []string // the messages that the handler has got
	}{
		"header":               {how: byHeader, header: of("u"), messages: []string{"", "any"}, handled: []string{"", "any"}},
		"header, another's":    {how: byHeader, header: of("other"), messages: []string{""}, want: ErrWrongPod},
		"header, nobody's":     {how: byHeader, header: of("nobody"), want: ErrWrongPod},
		"no header":            {how: byHeader, header: header{}, messages: []string{"u"}, want: ErrUIDRequired},
		"first message":        {header: header{}, messages: []string{"u", "", "u"}, handled: []string{"u", "", "u"}},
		"another's message":    {header: header{}, messages: []string{"other"}, want: ErrWrongPod},
		"a message of none":    {header: header{}, messages: []string{""}, want: ErrUIDRequired},
		"a later user":         {header: header{}, messages: []string{"u", "other"}, handled: []string{"u"}, want: ErrUIDMismatch},
		"a later user of ours": {header: header{}, messages: []string{"u", "v"}, handled: []string{"u"}, want: ErrUIDMismatch},
		"match": {
			how: func(o *guardOptions) { o.uid, o.match = nil, userField }, header: of("u"), messages: []string{"u", "", "u"},
			handled: []string{"u", "", "u"},
		},
		"match, none in the first": {
			how: func(o *guardOptions) { o.uid, o.match = nil, userField }, header: of("u"), messages: []string{""}, want: ErrUIDMismatch,
		},
		"match, they differ": {
			how: func(o *guardOptions) { o.uid, o.match = nil, userField }, header: of("u"), messages: []string{"v"}, want: ErrUIDMismatch,
		},
		"match, they differ later": {
			how: func(o *guardOptions) { o.uid, o.match = nil, userField }, header: of("u"), messages: []string{"u", "v"},
			handled: []string{"u"}, want: ErrUIDMismatch,
		},
		"public": {
			how: func(o *guardOptions) { o.uid, o.public = nil, []string{operationTalk} }, header: header{}, messages: []string{"any"},
			handled: []string{"any"},
		},
		"public, by message": {
			how: func(o *guardOptions) { o.public = []string{operationTalk} }, header: header{}, messages: []string{"", "other"},
			handled: []string{""}, want: ErrWrongPod,
		},
		"a function of the context": {
			how: func(o *guardOptions) {
				o.uid = func(ctx context.Context, _ any) string { return receiveUID(ctx, nil) }
			}, header: of("other"), want: ErrWrongPod,
		},
		"a function that wants a message": {
			how: func(o *guardOptions) {
				o.uid = func(_ context.Context, request any) string { return request.(*v1.SetWorkloadStateRequest).GetService() }
			}, header: header{}, messages: []string{"u"}, handled: []string{"u"},
		},
		"a function that panics": {
			how: func(o *guardOptions) {
				o.uid = func(_ context.Context, request any) string { return request.(*v1.Pod).GetState() }
			}, header: header{}, messages: []string{"u"}, want: ErrUIDRequired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newGuardWorld(t, row.how)
				w.podlink.link("u", 0, 1)
				w.podlink.link("v", 0, 2)
				w.podlink.link("other", 1, 3)
				var handled []string
				s, ended := w.open(t.Context(), row.header, func(_ any, stream grpc.ServerStream) error {
					for {
						var message v1.SetWorkloadStateRequest
						err := stream.RecvMsg(&message)
						if errors.Is(err, io.EOF) {
							return nil
						}
						if err != nil {
							return errors.New("what a handler makes of an error does not matter")
						}
						handled = append(handled, message.GetService())
						if message.GetService() == "u" {
							require.EqualValues(t, 1, Epoch(stream.Context()))
						}
					}
				})
				for _, uid := range row.messages {
					s.arriving <- &v1.SetWorkloadStateRequest{Service: uid}
				}
				close(s.arriving)
				require.ErrorIs(t, <-ended, row.want)
				require.Equal(t, row.handled, handled)
			})
		})
	}
}

// TestStreamEndsWithItsUser: a stream on which nothing is sent ends when its user is not the pod's any more.
func TestStreamEndsWithItsUser(t *testing.T) {
	for name, row := range map[string]struct {
		happens func(w *guardWorld)
		want    error
		within  time.Duration
	}{
		"moved":      {func(w *guardWorld) { w.podlink.link("u", 1, 2) }, ErrWrongPod, guardCacheTTL},
		"removed":    {func(w *guardWorld) { w.podlink.link("u", -1, 0) }, ErrWrongPod, guardCacheTTL},
		"superseded": {func(w *guardWorld) { w.leased.supersede() }, ErrWrongPod, guardCacheTTL},
		"lost":       {func(w *guardWorld) { w.lost("u", 1) }, ErrWrongPod, 0},
		"corrupt": {func(w *guardWorld) {
			w.podlink.set(func(p *guardPodlink) { p.errs["u"] = v1.ErrorStoreDataCorrupt("the key holds something else") })
		}, ErrLinkUncertain, guardCacheTTL},
	} {
		for how, handler := range map[string]grpc.StreamHandler{"receives": receives, "waits": waits} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newGuardWorld(t, byHeader)
					w.podlink.link("u", 0, 1)
					_, ended := w.open(t.Context(), of("u"), handler)
					w.reportFor(time.Minute)
					noEnd(t, ended)
					begin := time.Now()
					row.happens(w)
					require.ErrorIs(t, <-ended, row.want)
					require.LessOrEqual(t, time.Since(begin), row.within)
					require.Empty(t, w.streams.all)
				})
			})
		}
	}
}

// TestStreamHandlerHears: the handler of a stream that ends gets the same error from its messages, and from its context.
func TestStreamHandlerHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, byHeader)
		w.podlink.link("u", 0, 1)
		_, ended := w.open(t.Context(), of("u"), func(_ any, stream grpc.ServerStream) error {
			require.NoError(t, stream.SendMsg(&v1.Pod{}))
			require.ErrorIs(t, stream.RecvMsg(&v1.Pod{}), ErrWrongPod)
			require.ErrorIs(t, stream.RecvMsg(&v1.Pod{}), ErrWrongPod)
			require.ErrorIs(t, stream.SendMsg(&v1.Pod{}), ErrWrongPod)
			require.ErrorIs(t, context.Cause(stream.Context()), ErrWrongPod)
			return nil
		})
		synctest.Wait()
		w.podlink.link("u", 1, 2)
		refusedWith(t, <-ended, ErrWrongPod, "u", 1, 2)
	})
}

// TestStreamWithoutPodlink: a stream outlasts podlink until the lease ends, and then the pod can't know any more.
func TestStreamWithoutPodlink(t *testing.T) {
	for name, away := range map[string]func(p *guardPodlink){
		"refuses": func(p *guardPodlink) { p.down = withCause(ErrUnavailable, nil) },
		"hangs":   func(p *guardPodlink) { p.hangs = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newGuardWorld(t, byHeader)
				w.podlink.link("u", 0, 1)
				_, ended := w.open(t.Context(), of("u"), receives)
				synctest.Wait()
				w.podlink.set(away)
				time.Sleep(guardTTL - time.Millisecond)
				noEnd(t, ended)
				begin := time.Now()
				require.ErrorIs(t, <-ended, ErrLinkUncertain)
				require.LessOrEqual(t, time.Since(begin), guardTimeout+time.Millisecond)
			})
		})
	}
}

// TestStreamOfSession: a stream of a user with a session is judged by the session, and podlink is not asked. Its epoch follows that
// of the session; it ends with the session that it was opened for, and not with an earlier one.
func TestStreamOfSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, byHeader)
		w.podlink.link("u", 0, 5)
		var inner context.Context
		_, ended := w.open(t.Context(), of("u"), func(_ any, stream grpc.ServerStream) error {
			inner = stream.Context()
			return receives(nil, stream)
		})
		synctest.Wait()
		w.held.hold("u", holding{epoch: 6, verified: time.Now()})
		w.podlink.link("u", 1, 9) // The sessions will notice.
		w.reportFor(time.Minute)
		noEnd(t, ended)
		require.EqualValues(t, 6, Epoch(inner))
		require.Equal(t, 1, w.podlink.questions("u"))
		w.lost("u", 4)
		noEnd(t, ended)
		w.lost("v", 9)
		noEnd(t, ended)
		w.lost("u", 6)
		require.ErrorIs(t, <-ended, ErrWrongPod)
	})
}

// TestStreamsAskLittle: podlink is asked about a user once per CacheTTL, however many streams there are, and requests beside them.
func TestStreamsAskLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, byHeader)
		w.podlink.link("u", 0, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var all []<-chan error
		for range 100 {
			_, ended := w.open(ctx, of("u"), receives)
			all = append(all, ended)
		}
		w.reportFor(time.Minute)
		require.InDelta(t, time.Minute/guardCacheTTL, w.podlink.questions("u"), 2)
		require.Len(t, w.streams.all["u"], 100)
		cancel()
		for _, ended := range all {
			require.Equal(t, codes.Canceled, status.Code(<-ended))
		}
		require.Empty(t, w.streams.all)
	})
}

// TestStreamEndsWhileChecked: a handler that returns waits for no answer of podlink, and its own result counts.
func TestStreamEndsWhileChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGuardWorld(t, byHeader)
		w.podlink.link("u", 0, 1)
		done := make(chan struct{})
		_, ended := w.open(t.Context(), of("u"), func(any, grpc.ServerStream) error { <-done; return io.ErrUnexpectedEOF })
		synctest.Wait()
		w.podlink.set(func(p *guardPodlink) { p.hangs = true })
		time.Sleep(guardTTL + time.Second) // There is no lease, so the check waits for podlink.
		close(done)
		begin := time.Now()
		require.ErrorIs(t, <-ended, io.ErrUnexpectedEOF)
		require.Zero(t, time.Since(begin))
	})
}

// TestStreamsOverTheWire: what a client of a real server gets, and that nothing of a stream stays behind.
func TestStreamsOverTheWire(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	w := newGuardWorld(t, func(o *guardOptions) { o.uid, o.cacheTTL = nil, 10*time.Millisecond })
	w.podlink.link("u", 0, 1)
	w.podlink.link("other", 1, 2)

	listener := bufconn.Listen(1 << 16)
	server := kgrpc.NewServer(kgrpc.Listener(listener), kgrpc.Endpoint(&url.URL{Scheme: "grpc", Host: "pod"}), kgrpc.StreamInterceptor(w.stream), kgrpc.CustomHealth())
	health := &waitingHealth{}
	grpc_health_v1.RegisterHealthServer(server, health)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "chat.v1.Chat", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Talk", ClientStreams: true, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				var message v1.SetWorkloadStateRequest
				if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(&v1.Workload{Service: message.GetService(), UpdateMs: Epoch(stream.Context())}); err != nil {
					return err
				}
			}
		}}},
	}, nil)
	go func() { _ = server.Start(context.Background()) }()
	t.Cleanup(server.Server.Stop)
	conn, err := grpc.NewClient("passthrough:///pod", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })

	open := func(uid string) grpc.ClientStream {
		ctx := t.Context()
		if uid != "" {
			ctx = grpcmetadata.AppendToOutgoingContext(ctx, uidHeader, uid)
		}
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, operationTalk)
		require.NoError(t, err)
		return stream
	}
	ends := func(stream grpc.ClientStream) error { return stream.RecvMsg(new(v1.Workload)) }

	require.ErrorIs(t, kerrors.FromError(ends(open(""))), ErrUIDRequired)
	err = ends(open("other"))
	require.Equal(t, codes.Aborted, status.Code(err))
	refusedWith(t, err, ErrWrongPod, "other", 1, 2)

	stream, idle := open("u"), open("u")
	for range 3 {
		require.NoError(t, stream.SendMsg(&v1.SetWorkloadStateRequest{Service: "text"}))
		var echo v1.Workload
		require.NoError(t, stream.RecvMsg(&echo))
		require.EqualValues(t, 1, echo.GetUpdateMs())
	}
	w.podlink.link("u", 1, 3)
	refusedWith(t, ends(stream), ErrWrongPod, "u", 1, 3)
	refusedWith(t, ends(idle), ErrWrongPod, "u", 1, 3)

	w.podlink.link("u", 0, 4)
	closing := open("u")
	require.NoError(t, closing.CloseSend())
	require.ErrorIs(t, ends(closing), io.EOF)

	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	first, err := watch.Recv()
	require.NoError(t, err, "health names no user")
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, first.GetStatus())
}

// waitingHealth says that it serves.
type waitingHealth struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (*waitingHealth) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	return stream.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
}
