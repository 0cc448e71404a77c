package inproc_test

import (
	"context"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/inproc"
	"podlink/test/kit/model"
)

const timeout = 500 * time.Millisecond

// env is a podlink with two callers.
type env struct {
	*testing.T
	store    *model.Store
	server   *inproc.Server
	conn     *inproc.Conn
	neighbor *inproc.Conn
}

func bubble(t *testing.T, test func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := model.NewStore()
		server := inproc.NewServer(store)
		test(&env{t, store, server, inproc.Dial(timeout, server), inproc.Dial(timeout, server)})
		server.Kill()
	})
}

// set links a user over the connection. It returns whether the call was sent.
func (e *env) set(ctx context.Context, conn *inproc.Conn, uid string) (sent bool, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent = true }})
	_, err = v1.NewLinkServiceClient(conn).SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: "ns", Uid: uid, Service: "chat", PodId: new(int32(1)),
	})
	return sent, err
}

func (e *env) links(conn *inproc.Conn) []*v1.Link {
	e.Helper()
	reply, err := v1.NewLinkServiceClient(conn).ListLinkedServices(e.Context(), &v1.ListLinkedServicesRequest{Namespace: "ns", Uid: "alice"})
	require.NoError(e, err)
	return reply.GetLinks()
}

func TestCallsReachTheRealService(t *testing.T) {
	bubble(t, func(e *env) {
		sent, err := e.set(e.Context(), e.conn, "alice")
		require.NoError(e, err)
		require.True(e, sent)
		require.Len(e, e.links(e.neighbor), 1)
		reply, err := v1.NewStateServiceClient(e.conn).SetServiceState(e.Context(), &v1.SetServiceStateRequest{
			Namespace: "ns", Service: "chat", PodId: new(int32(1)), State: "up",
		})
		require.NoError(e, err)
		require.EqualValues(e, 30, reply.GetPod().GetTtlSeconds())
		_, err = v1.NewWorkloadServiceClient(e.conn).SetWorkloadState(e.Context(), &v1.SetWorkloadStateRequest{
			Namespace: "ns", Service: "chat", State: "up",
		})
		require.NoError(e, err)
		require.Equal(e, 1, e.server.Calls(v1.StateService_SetServiceState_FullMethodName))
	})
}

func TestErrorsAreThoseOfTheWire(t *testing.T) {
	bubble(t, func(e *env) {
		_, err := e.set(e.Context(), e.conn, "")
		got := kerrors.FromError(err)
		require.Equal(e, codes.InvalidArgument, status.Code(err))
		require.Equal(e, v1.ErrorReason_INVALID_ARGUMENT.String(), got.Reason)
		require.Equal(e, "uid", got.Metadata["field"])
		require.NoError(e, got.Unwrap(), "the cause stays in podlink")

		e.store.Kill()
		_, err = e.set(e.Context(), e.conn, "alice")
		require.True(e, v1.IsStoreUnavailable(err))
		_, err = e.set(e.Context(), e.conn, "\xff")
		require.Equal(e, codes.Internal, status.Code(err))
	})
}

func TestKilledServer(t *testing.T) {
	bubble(t, func(e *env) {
		e.server.Kill()
		sent, err := e.set(e.Context(), e.conn, "alice")
		require.False(e, sent)
		require.Equal(e, codes.Unavailable, status.Code(err))
		e.server.Start()
		e.server.SetLatency(func() time.Duration { return 200 * time.Millisecond })
		time.AfterFunc(50*time.Millisecond, e.server.Kill)
		sent, err = e.set(e.Context(), e.conn, "alice")
		require.True(e, sent)
		require.Equal(e, codes.Unavailable, status.Code(err))
		e.server.Start()
		e.server.SetLatency(nil)
		require.Empty(e, e.links(e.conn))
	})
}

func TestAnotherServerTakesOver(t *testing.T) {
	bubble(t, func(e *env) {
		second := inproc.NewServer(e.store)
		defer second.Kill()
		both := inproc.Dial(timeout, e.server, second)
		_, err := e.set(e.Context(), both, "alice")
		require.NoError(e, err)
		e.server.Kill()
		require.Len(e, e.links(both), 1)
	})
}

func TestFrozenServer(t *testing.T) {
	bubble(t, func(e *env) {
		e.server.Freeze()
		began := time.Now()
		sent, err := e.set(e.Context(), e.conn, "alice")
		require.True(e, sent)
		require.Equal(e, codes.DeadlineExceeded, status.Code(err))
		require.Equal(e, timeout, time.Since(began))
		ctx, cancel := context.WithCancel(e.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err = e.set(ctx, e.conn, "alice")
		require.Equal(e, codes.Canceled, status.Code(err))
		e.server.Unfreeze()
		synctest.Wait()
		require.Len(e, e.links(e.conn), 1, "what was sent is executed")
	})
}

func TestLostReply(t *testing.T) {
	bubble(t, func(e *env) {
		e.server.DropReplies(func(method string) bool { return method == v1.LinkService_SetLinkedPod_FullMethodName })
		sent, err := e.set(e.Context(), e.conn, "alice")
		require.True(e, sent)
		require.Equal(e, codes.Unavailable, status.Code(err))
		require.Len(e, e.links(e.conn), 1, "it was executed")
	})
}

func TestCutCaller(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Cut()
		sent, err := e.set(e.Context(), e.conn, "alice")
		require.True(e, sent)
		require.Equal(e, codes.DeadlineExceeded, status.Code(err))
		require.Empty(e, e.links(e.neighbor))
		e.conn.Mend()
		_, err = e.set(e.Context(), e.conn, "alice")
		require.NoError(e, err)
	})
}

func TestLatency(t *testing.T) {
	bubble(t, func(e *env) {
		e.server.SetLatency(func() time.Duration { return 40 * time.Millisecond })
		e.store.SetLatency(func() time.Duration { return 2 * time.Millisecond })
		began := time.Now()
		_, err := e.set(e.Context(), e.conn, "alice")
		require.NoError(e, err)
		require.Equal(e, 42*time.Millisecond, time.Since(began))
	})
}
