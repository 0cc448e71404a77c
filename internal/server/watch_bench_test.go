package server

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
)

// BenchmarkWatchers has 1,000 watchers of one service, each on its own connection, at 100 changes a second. An iteration is a change that
// all of them have got. It reports the CPU time of both sides for each second, which has a target: less than a core for podlink's.
func BenchmarkWatchers(b *testing.B) {
	const watchers = 1000
	feed := new(memoryFeed)
	watches := biz.NewWatches(feed, biz.WatchLimits{Watches: 2000, Services: 10}, biz.NopWatchObserver{})
	defer watches.Close()
	p := newParts(b)
	p.config.Grpc.Addr = "127.0.0.1:0"
	p.chain.watches.most = watchers
	p.fleet = service.NewFleetService(nil, watches, nil, nil)
	srv, stop := NewGRPCServer(p.config, p.api(), p.chain, healthyStore{}, p.drain, ListenerTLS{})
	defer stop()
	endpoint, err := srv.Endpoint()
	require.NoError(b, err)
	go func() { _ = srv.Start(context.Background()) }()

	ctx, cancel := context.WithCancel(b.Context())
	var begun, all sync.WaitGroup
	var slowest, changes sync.Map
	begun.Add(watchers)
	for i := range watchers {
		conn, err := grpc.NewClient(endpoint.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(b, err)
		defer conn.Close()
		all.Go(func() {
			n, worst := 0, time.Duration(0)
			err := follow(ctx, conn, begun.Done, func(c *v1.LinkChange) {
				n++
				worst = max(worst, time.Since(c.GetTime().AsTime()))
			})
			if ctx.Err() == nil {
				b.Error(err)
			}
			changes.Store(i, n)
			slowest.Store(i, worst)
		})
	}
	begun.Wait()
	before, start := processorTime(b), time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	sent := 0
	for b.Loop() {
		feed.append(biz.Change{
			Kind: biz.Linked, Link: biz.Link{Key: biz.LinkKey{Namespace: "ns", UID: fmt.Sprintf("u%d", sent), Service: "svc"}, Epoch: 5},
			Previous: biz.NoPod, Time: time.Now(),
		})
		sent++
		<-tick.C
	}
	took := time.Since(start)
	b.ReportMetric(float64(processorTime(b)-before)/float64(took), "cores")
	time.Sleep(time.Second)
	cancel()
	all.Wait()
	worst := time.Duration(0)
	for i := range watchers {
		n, _ := changes.Load(i)
		require.Equal(b, sent, n)
		late, _ := slowest.Load(i)
		worst = max(worst, late.(time.Duration))
	}
	b.ReportMetric(float64(worst.Milliseconds()), "slowest-ms")
}

// follow calls each for every change, and begun after the first message.
func follow(ctx context.Context, conn *grpc.ClientConn, begun func(), each func(*v1.LinkChange)) error {
	stream, err := v1.NewFleetServiceClient(conn).WatchLinks(ctx, &v1.WatchLinksRequest{Namespace: "ns", Service: "svc"})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if first {
			begun()
		}
		for _, c := range m.GetChanges() {
			each(c)
		}
		if m.GetResync() != 0 && !first {
			return io.ErrUnexpectedEOF
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
