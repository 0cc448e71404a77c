package client

import (
	"context"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// heap returns the bytes that are in use after a collection.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// cpu returns the time that the process has computed.
func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSessions100k is what 100,000 sessions cost a pod: memory; the part of a core that verifying 2,000 a second takes,
// with encoding the requests and decoding them again as podlink would; and the time until all have ended.
func BenchmarkSessions100k(b *testing.B) {
	const users = 100_000
	for b.Loop() {
		store := newFakeLinks()
		uids := make([]string, users)
		for i := range uids {
			uids[i] = "user:" + strconv.Itoa(i)
			store.put(uids[i], 0)
		}
		p := newPodSessions(store, 0, 7)
		p.report()
		handles := make([]*Session, users)
		for _, uid := range uids { // The links are the store's.
			link := store.links[uid]
			link.claim = 7
			store.links[uid] = link
		}
		before := heap()
		for i, uid := range uids {
			h, err := p.start(b.Context(), uid, store.links[uid].epoch)
			require.NoError(b, err)
			handles[i] = h
		}
		b.ReportMetric((heap()-before)/1e6, "MB")

		encoded := func(ctx context.Context, items []*v1.BatchVerifyLinkedPodRequest_Item) {
			data, err := proto.Marshal(&v1.BatchVerifyLinkedPodRequest{Namespace: testNamespace, Service: testService, Items: items})
			require.NoError(b, err)
			require.NoError(b, proto.Unmarshal(data, &v1.BatchVerifyLinkedPodRequest{}))
			require.NoError(b, p.check(ctx, items))
		}
		p.suspect = time.Now()
		begun, checked := cpu(), 0
		for items := p.dueChecks(largestBatch); len(items) > 0; items = p.dueChecks(largestBatch) {
			encoded(b.Context(), items)
			checked += len(items)
		}
		require.Equal(b, users, checked)
		b.ReportMetric(100*(cpu()-begun).Seconds()/users*checksPerSecond, "%core/sweep")

		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.run(ctx) }()
		start := time.Now()
		for _, h := range handles {
			h.End(ctx, 0)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/end")
		running, ending := p.handOver(ctx)
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/drain")
		require.Zero(b, running+ending)
		cancel()
		<-ended
	}
}
