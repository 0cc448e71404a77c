package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"podlink/test/kit/proc"
)

// streamPod is a pod whose streams answer once, or are refused.
type streamPod struct {
	grpc_health_v1.UnimplementedHealthServer
	ordinal string

	mu      sync.Mutex
	refuse  error
	users   []string // that the streams named in their header
	address string
}

func (p *streamPod) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	p.mu.Lock()
	sent, _ := metadata.FromIncomingContext(stream.Context())
	p.users = append(p.users, sent.Get(uidHeader)...)
	refuse := p.refuse
	p.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	return stream.Send(&grpc_health_v1.HealthCheckResponse{})
}

func (p *streamPod) set(refuse error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// streamPods starts pods with streams, and a client whose streams the router opens.
func streamPods(t *testing.T, w *world, r *Router, count int) ([]*streamPod, func(ctx context.Context) error) {
	t.Helper()
	var pods []*streamPod
	for id := range count {
		p := &streamPod{ordinal: fmt.Sprint(id), address: proc.FreeAddr(t)}
		server := kgrpc.NewServer(kgrpc.Address(p.address), kgrpc.CustomHealth())
		grpc_health_v1.RegisterHealthServer(server, p)
		go func() { _ = server.Start(context.Background()) }()
		t.Cleanup(server.Server.Stop)
		one := newPod(t, int32(id)).instance(map[string]string{MetadataPodID: p.ordinal})
		one.Endpoints = []string{"grpc://" + p.address}
		w.put(one)
		pods = append(pods, p)
	}
	conn, err := kgrpc.DialInsecure(t.Context(), kgrpc.WithEndpoint("discovery:///chat"), kgrpc.WithDiscovery(w.instances),
		kgrpc.WithNodeFilter(r.NodeFilter()), kgrpc.WithStreamInterceptor(r.StreamInterceptor()), kgrpc.WithSubset(0),
		kgrpc.WithPrintDiscoveryDebugLog(false), kgrpc.WithHealthCheck(false))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return pods, func(ctx context.Context) error {
		stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			return err
		}
		if _, err = stream.Recv(); err != nil {
			return err
		}
		_, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// TestStreamsAreRouted: a stream is opened at the pod of its user, and names the user to the pod. Without an instance of the pod the
// client tries for a while.
func TestStreamsAreRouted(t *testing.T) {
	w := newWorld(t, "gRPC")
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{RetryTimeout: soon})
	require.NoError(t, err)
	pods, open := streamPods(t, w, r, 3)
	for id, p := range pods {
		uid := fmt.Sprintf("user:%d/\u00fc", id)
		w.link(uid, int32(id))
		require.NoError(t, open(WithUID(t.Context(), uid)))
		p.mu.Lock()
		require.Equal(t, []string{url.PathEscape(uid)}, p.users)
		p.mu.Unlock()
	}
	require.NoError(t, open(t.Context()), "about no user")
}

// TestStreamsOfAUIDFunc: it finds the user without a request; where it does not, the context's user counts.
func TestStreamsOfAUIDFunc(t *testing.T) {
	w := newWorld(t, "gRPC")
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{UID: userField, RetryTimeout: soon})
	require.NoError(t, err)
	pods, open := streamPods(t, w, r, 2)
	w.link("warm", 1)
	require.NoError(t, open(WithUID(t.Context(), "warm"))) // A connection that is still coming up may cost a try.
	before := w.calls("ComputeLinkedPod")
	w.link("u", 1)
	require.NoError(t, open(WithUID(t.Context(), "u")))
	require.Empty(t, pods[1].users, "the pod finds the user as the caller does")
	require.Equal(t, before+1, w.calls("ComputeLinkedPod"))
}

// TestRefusedStream: a pod refuses the stream of a user who was moved. It ends with the pod's error, and the next one is opened at the
// right pod.
func TestRefusedStream(t *testing.T) {
	w := newWorld(t, "gRPC")
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{CacheTTL: time.Hour, RetryTimeout: soon})
	require.NoError(t, err)
	pods, open := streamPods(t, w, r, 2)
	ctx := WithUID(t.Context(), "u")
	w.link("u", 0)
	require.NoError(t, open(ctx))
	w.link("u", 1)
	pods[0].set(refusal(ErrWrongPod, "u", "0"))
	require.ErrorIs(t, kerrors.FromError(open(ctx)), ErrWrongPod)
	require.NoError(t, open(ctx))
	require.Len(t, pods[1].users, 1)
}

// TestStreamWithoutThePod: nothing was carried out, and the error says so.
func TestStreamWithoutThePod(t *testing.T) {
	w := newWorld(t, "gRPC")
	r, err := w.client.NewRouter(testNamespace, testService, RouterOptions{RetryTimeout: 200 * time.Millisecond})
	require.NoError(t, err)
	_, open := streamPods(t, w, r, 2)
	require.NoError(t, open(t.Context()))
	w.link("u", 7)
	err = open(WithUID(t.Context(), "u"))
	require.ErrorIs(t, err, ErrPodUnreachable)
	require.ErrorContains(t, err, "discovery has no instance of it, or it can't be connected")
}
