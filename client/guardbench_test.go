package client

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/transport"

	v1 "podlink/api/podlink/v1"
)

// BenchmarkGuardWarm is what the Guard adds to a request about a user whom it knows.
func BenchmarkGuardWarm(b *testing.B) {
	for name, row := range map[string]struct {
		how     func(o *guardOptions)
		session bool
	}{
		"field":              {how: func(o *guardOptions) { o.uid = userField }},
		"header":             {how: func(o *guardOptions) { o.uid = nil }},
		"header and field":   {how: func(o *guardOptions) { o.uid, o.match = nil, userField }},
		"field, its session": {how: func(o *guardOptions) { o.uid = userField }, session: true},
	} {
		b.Run(name, func(b *testing.B) {
			w := newGuardWorld(b, func(o *guardOptions) {
				row.how(o)
				o.cacheTTL, o.lease = time.Hour, newLease(time.Hour)
			})
			w.lease.renew(renewal{begun: time.Now(), generation: 1})
			w.leaseNow()
			requests := make([]*v1.SetWorkloadStateRequest, benchUsers)
			ctx := make([]context.Context, benchUsers)
			for i := range requests {
				uid := "user:" + strconv.Itoa(i)
				requests[i] = &v1.SetWorkloadStateRequest{Service: uid}
				h := header{}
				h.Set(uidHeader, uid)
				ctx[i] = transport.NewServerContext(context.Background(), &call{h})
				w.cache.store(uid, &v1.Link{PodId: 0, Epoch: 1, Persistent: true, TtlSeconds: -1}, time.Now())
				if row.session {
					w.held.hold(uid, holding{epoch: 1, verified: time.Now().Add(-time.Second)})
				}
			}
			guarded := w.middleware(func(context.Context, any) (any, error) { return nil, nil })
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := guarded(ctx[i%benchUsers], requests[i%benchUsers]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
