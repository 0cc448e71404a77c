//go:build fleet

package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const (
	namespace = "fleet"
	service   = "game"
	pods      = 10
	claim     = 7

	// listPage is how many links a page of a list has.
	listPage = 1000
	// callTimeout bounds a call, and callTries how often one is made that podlink could not answer: the machine may be busy.
	callTimeout, callTries = 10 * time.Second, 30
	// completeTimeout bounds how long the index may be incomplete.
	completeTimeout = 10 * time.Minute
)

// settings of podlink. A VERIFY has no use for a limit, and the sweep must not repair what is planted for it.
var settings = []string{"PODLINK_FLEET_JOB_RATE=1000000", "PODLINK_FLEET_SWEEP_EVERY=720h", "PODLINK_FLEET_FEED_MAX_AGE=1h"}

// fleet is a service in a Redis, with podlinks.
type fleet struct {
	*testing.T
	server   *redistest.Server
	redis    *redis.Client
	podlinks []*podlink
}

// podlink is a process and a connection to it.
type podlink struct {
	*podlinktest.Process
	conn *grpc.ClientConn
}

// newFleet starts a Redis and one podlink, and reports the pods.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	server := redistest.Start(t)
	f := &fleet{T: t, server: server, redis: server.Client(t)}
	f.start(1)
	for pod := range int32(pods) {
		f.call(func(ctx context.Context) error {
			_, err := v1.NewStateServiceClient(f.conn()).SetServiceState(ctx, &v1.SetServiceStateRequest{
				Namespace: namespace, Service: service, PodId: &pod, State: "up", Load: proto.Int32(f.perPod()), TtlSeconds: proto.Int32(86_400),
			})
			return err
		})
	}
	return f
}

// start starts more podlinks.
func (f *fleet) start(n int) {
	f.Helper()
	for range n {
		p := podlinktest.Start(f.T, binary, append(podlinktest.OnRedis("standalone", f.server.Addr()), settings...)...)
		p.WaitReady(f.T)
		f.podlinks = append(f.podlinks, &podlink{p, p.Conn(f.T)})
	}
}

// conn is a connection to a podlink that lives.
func (f *fleet) conn() *grpc.ClientConn { return f.podlinks[0].conn }

func (f *fleet) perPod() int32 { return int32(*allLinks / pods) }

// call makes a call that may be repeated, until it succeeds.
func (f *fleet) call(do func(ctx context.Context) error) {
	f.Helper()
	require.NoError(f, f.try(do))
}

func (f *fleet) try(do func(ctx context.Context) error) (err error) {
	for range callTries {
		ctx, cancel := context.WithTimeout(f.Context(), callTimeout)
		err = do(ctx)
		cancel()
		if err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

// uidOf is the user with that number, podOf the pod to which the fleet links it.
func uidOf(n int) string { return fmt.Sprintf("user:%07d", n) }

func podOf(n int) int32 { return int32(n % pods) }

// fill links all users, as many callers do it, and waits until the index has them.
func (f *fleet) fill() {
	f.Helper()
	const callers, batch = 8, 500
	began := time.Now()
	var next atomic.Int64
	errs := make([]error, callers)
	var calling sync.WaitGroup
	for caller := range callers {
		calling.Go(func() {
			for errs[caller] == nil {
				first := int(next.Add(batch)) - batch
				if first >= *allLinks {
					return
				}
				errs[caller] = f.try(func(ctx context.Context) error { return f.link(ctx, first, first+batch) })
			}
		})
	}
	calling.Wait()
	require.NoError(f, errors.Join(errs...))
	measured.took("", time.Since(began), "%d claimed links are made over gRPC, %d at a time", *allLinks, batch)
	f.awaitComplete()
	measured.took("", time.Since(began), "until the index has all of them")
	if memory, err := f.redis.InfoMap(f.Context(), "memory").Result(); err == nil {
		measured.add("", memory["Memory"]["used_memory_human"], "Redis' memory then")
	}
}

// link links some users.
func (f *fleet) link(ctx context.Context, from, to int) error {
	request := &v1.BatchSetLinkedPodRequest{Namespace: namespace, Service: service}
	for n := from; n < to; n++ {
		request.Items = append(request.Items, &v1.BatchSetLinkedPodRequest_Item{Uid: uidOf(n), PodId: proto.Int32(podOf(n)), Claim: claim})
	}
	reply, err := v1.NewLinkServiceClient(f.conn()).BatchSetLinkedPod(ctx, request)
	for _, result := range reply.GetResults() {
		if problem := result.GetProblem(); problem != nil {
			return errors.New(problem.String())
		}
	}
	return err
}

// awaitComplete waits until every podlink says that the index is complete, and it has all links. It may have others: a podlink that was
// killed has not removed what it has moved, and lists do that.
func (f *fleet) awaitComplete() {
	f.Helper()
	for _, p := range f.podlinks {
		for deadline := time.Now().Add(completeTimeout); ; time.Sleep(100 * time.Millisecond) {
			links := int64(0)
			var reply *v1.CountPodLinksReply
			f.call(func(ctx context.Context) (err error) {
				reply, err = v1.NewFleetServiceClient(p.conn).CountPodLinks(ctx, &v1.CountPodLinksRequest{Namespace: namespace, Service: service})
				return err
			})
			for _, count := range reply.GetCounts() {
				links += count.GetLinks()
			}
			if reply.GetComplete() && links >= int64(*allLinks) {
				break
			}
			require.True(f, time.Now().Before(deadline), "%s", reply)
		}
	}
}

// requireListed checks that the lists of all pods have every link once, as it is stored. If it is to be measured, so are the pages.
func (f *fleet) requireListed(truth map[string]link, measure bool) {
	f.Helper()
	listed, pages := make(map[string]bool, len(truth)), []time.Duration(nil)
	for pod := range int32(pods) {
		for token, more := "", true; more; more = token != "" {
			var reply *v1.ListPodLinksReply
			f.call(func(ctx context.Context) (err error) {
				began := time.Now()
				reply, err = v1.NewFleetServiceClient(f.conn()).ListPodLinks(ctx, &v1.ListPodLinksRequest{
					Namespace: namespace, Service: service, PodId: &pod, PageSize: listPage, PageToken: token,
				})
				pages = append(pages, time.Since(began))
				return err
			})
			require.True(f, reply.GetComplete())
			token = reply.GetNextPageToken()
			for _, one := range reply.GetLinks() {
				if listed[one.GetUid()] {
					require.Fail(f, "listed twice", one)
				}
				listed[one.GetUid()] = true
				if got := (link{one.GetPodId(), one.GetEpoch(), one.GetClaim()}); got != truth[one.GetUid()] || got.pod != pod {
					require.Fail(f, "not as stored", "%s is stored as %v", one, truth[one.GetUid()])
				}
			}
		}
	}
	require.Equal(f, len(truth), len(listed))
	if !measure {
		return
	}
	slices.Sort(pages)
	const target, limit = 15 * time.Millisecond, 20 * 15 * time.Millisecond
	p50 := pages[len(pages)/2]
	measured.took(target.String(), p50, "ListPodLinks, pages of %d: p50 of %d", listPage, len(pages))
	measured.took("", pages[len(pages)*99/100], "ListPodLinks, pages of %d: p99", listPage)
	require.Less(f, p50, limit, "far above the target")
}
