//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/app"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/telemetry"
	redistest "podlink/test/kit/redis"
)

const (
	// connectionsEach is the maximum number of connections of podlink and of each rival.
	connectionsEach = 256
	// driverTimeout is long, so that a busy machine causes no timeouts.
	driverTimeout = 5 * time.Second
	// freshUsers is the number of users without a link that a slice of calls may use.
	freshUsers = 30_000
	// standingPod is the pod of the initial links. nextPod never returns it, so that the first Set moves the user.
	standingPod = pods
	// epoch has a realistic length.
	epoch = "1795408417769593"
)

// threeCommands is the minimal script to set a link.
const threeCommands = `local link = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PERSIST', KEYS[1])
return link`

// predecessors is the script by which podlink's predecessors link a user: on two keys, and sent with every call.
const predecessors = `-- Links a user to a pod of a stateful service, persistently.
--
-- KEYS[1]  the link: a string, the pod
-- KEYS[2]  the user's links: a hash, the service -> the pod
-- ARGV[1]  the service
-- ARGV[2]  the pod
--
-- Returns the pod that the user was linked to before, or -1.
local linkKey = KEYS[1]
local userKey = KEYS[2]
local service = ARGV[1]
local podId = ARGV[2]

local linkedPod = redis.call('GET', linkKey)

-- The link is persistent from now on, also when it was a temporary one.
redis.call('SET', linkKey, podId)
redis.call('PERSIST', linkKey)

-- The index is for listing what a user is linked to.
redis.call('HSET', userKey, service, podId)

if not linkedPod then
    return '-1'
end
return linkedPod`

// user returns the uid of the n-th user. All uids have 12 bytes.
func user(n int) string { return "user-" + strconv.Itoa(10_000_000 + n)[1:] }

// Keys of a user's links: podlink's, the one of the driver's script, and the predecessors' two.
func podlinkKey(uid string) string { return keyIn(namespace, uid) }

func keyIn(namespace, uid string) string { return "podlink:link:" + namespace + ":" + uid }

func driverKey(uid string) string { return "default:link:" + namespace + ":" + uid }

func predecessorKeys(uid, service string) []string {
	return []string{"link:" + namespace + ":" + uid + ":" + service, "links:" + namespace + ":" + uid}
}

// value returns a persistent link as podlink stores it.
func value(pod int32) string { return strconv.Itoa(int(pod)) + " " + epoch + " 0" }

// podOf returns the pod of a user's first link.
func podOf(n int) int32 { return int32(n % pods) }

// layer is podlink's data layer on a Redis.
type layer struct {
	links   biz.LinkRepo
	pods    biz.PodRepo
	fleet   biz.FeedRepo
	usecase *biz.LinkUsecase
}

// newLayer opens the data layer as podlink does.
func newLayer(t *testing.T, mode string, addrs ...string) layer {
	t.Helper()
	return layerWith(t, func(c *conf.Data_Redis) { c.Mode, c.Addrs = mode, addrs })
}

// podlink's default limits.
var (
	linkLimits = data.LinkLimits{MaxServices: 256}
	podLimits  = data.PodLimits{MaxPods: 4096, ForgetAfter: 24 * time.Hour}
)

func layerWith(t *testing.T, options func(c *conf.Data_Redis)) layer {
	t.Helper()
	c, timeout := conf.Default(), durationpb.New(driverTimeout)
	redis := c.GetData().GetRedis()
	redis.PoolSize, redis.MinIdleConns = connectionsEach, 0
	redis.PoolTimeout, redis.DialTimeout, redis.ReadTimeout, redis.WriteTimeout = timeout, timeout, timeout, timeout
	options(redis)
	store, closeStore, err := app.OpenStore(c.GetData(), nil, log.NewStdLogger(io.Discard))
	require.NoError(t, err)
	t.Cleanup(closeStore)
	require.NoError(t, store.Health.Check(t.Context()))
	keys := app.Keyspace(c.GetData())
	l := layer{
		links: data.NewLinkRepo(store.Runner, keys, linkLimits, data.NewLinkMetrics()),
		pods:  data.NewPodRepo(store.Runner, keys, podLimits, func() string { return "" }),
		fleet: data.NewFleet(store.Runner, keys, data.FleetOptions{FeedMaxAge: c.GetFleet().GetFeedMaxAge().AsDuration()}),
	}
	domain := telemetry.NewDomain()
	views, limits := biz.NewPodViews(l.pods, domain), biz.Limits{MaxBatch: int(c.GetLimits().GetMaxBatch())}
	t.Cleanup(views.Stop)
	l.usecase = biz.NewLinkUsecase(l.links, views, limits, domain)
	return l
}

// report stores reports of a service's pods that don't expire.
func (l layer) report(t *testing.T, service string, pods int) {
	t.Helper()
	for pod := range pods {
		_, err := l.pods.Set(t.Context(), biz.ServiceKey{Namespace: namespace, Service: service},
			biz.Report{Pod: biz.PodID(pod), State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity})
		require.NoError(t, err)
	}
}

func linkOf(uid string) biz.LinkKey {
	return biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
}

// linkExists returns an error unless the link exists.
func linkExists(link biz.Link, err error) error {
	if err == nil && !link.Exists() {
		err = errors.New("there is no link of " + link.Key.UID)
	}
	return err
}

// applied returns an error unless the mutation was applied.
func applied(change biz.LinkChange, err error) error {
	if err == nil && !change.Applied {
		err = fmt.Errorf("not applied: %+v", change)
	}
	return err
}

func second[T any](_ T, err error) error { return err }

// rig is a Redis with podlink's data layer and the driver alone, with the same options.
type rig struct {
	layer
	unshared layer // podlink's data layer with data.redis.auto_pipeline off
	server   *redistest.Server
	plain    *redis.Client
	auto     *redis.AutoPipeliner
	sha      string // of threeCommands
}

func newRig(t *testing.T) *rig {
	t.Helper()
	server := redistest.Start(t)
	r := &rig{layer: newLayer(t, conf.ModeStandalone, server.Addr()), server: server, plain: driver(t, server)}
	r.unshared = layerWith(t, func(c *conf.Data_Redis) {
		c.Mode, c.Addrs, c.AutoPipeline = conf.ModeStandalone, []string{server.Addr()}, false
	})
	r.auto = autoPipelined(t, driver(t, server))
	var err error
	r.sha, err = r.plain.ScriptLoad(t.Context(), threeCommands).Result()
	require.NoError(t, err)
	return r
}

// driver returns the driver alone on a server, with podlink's options.
func driver(t *testing.T, server *redistest.Server) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), PoolSize: connectionsEach, PoolTimeout: driverTimeout, DialTimeout: driverTimeout,
		ReadTimeout: driverTimeout, WriteTimeout: driverTimeout, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// autoPipelined returns the driver's auto-pipeline with its best setting, two batches in flight. With one, the default, Redis
// is idle at times; more than two are no faster.
func autoPipelined(t *testing.T, client *redis.Client) *redis.AutoPipeliner {
	t.Helper()
	auto, err := client.AutoPipelineWithOptions(
		&redis.AutoPipelineOptions{MaxBatchSize: 300, MaxConcurrentBatches: 2, Unordered: true})
	require.NoError(t, err)
	return auto
}

// flush removes all keys.
func (r *rig) flush(t *testing.T) {
	t.Helper()
	require.NoError(t, r.plain.FlushDB(t.Context()).Err())
}

// stand stores the users' links for every rival, and the reports of the pods.
func (r *rig) stand(t *testing.T) {
	t.Helper()
	r.flush(t)
	r.report(t, service, standingPod+1)
	populate(t, r.plain, users, func(pipe redis.Pipeliner, n int) {
		uid := user(n)
		pipe.HSet(t.Context(), podlinkKey(uid), service, value(standingPod))
		pipe.HSet(t.Context(), driverKey(uid), service, value(standingPod))
		keys := predecessorKeys(uid, service)
		pipe.Set(t.Context(), keys[0], standingPod, 0)
		pipe.HSet(t.Context(), keys[1], service, standingPod)
	})
}

// populate calls queue for each number below count, and sends what it queues in pipelines. queue must be safe for concurrent use.
func populate(t *testing.T, client redis.UniversalClient, count int, queue func(pipe redis.Pipeliner, n int)) {
	t.Helper()
	const batch, senders = 1000, 4
	var sending sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, senders)
	for sender := range senders {
		sending.Go(func() {
			for errs[sender] == nil {
				first := int(next.Add(batch)) - batch
				if first >= count {
					return
				}
				_, errs[sender] = client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
					for n := first; n < min(first+batch, count); n++ {
						queue(pipe, n)
					}
					return nil
				})
			}
		})
	}
	sending.Wait()
	require.NoError(t, errors.Join(errs...))
}

// put stores persistent links of that many users.
func put(t *testing.T, client redis.UniversalClient, users int, service string) {
	t.Helper()
	populate(t, client, users, func(pipe redis.Pipeliner, n int) {
		pipe.HSet(t.Context(), podlinkKey(user(n)), service, value(podOf(n)))
	})
}

// Names of podlink and its rivals.
const (
	itself        = "podlink"
	itselfAlone   = "podlink, auto_pipeline off"
	plainGet      = "the predecessors, GET"
	plainHGet     = "the driver, HGET"
	autoHGet      = "the driver, auto-pipelined HGET"
	plainEvalSHA  = "the driver, EVALSHA"
	autoEvalSHA   = "the driver, auto-pipelined EVALSHA"
	predecessorsE = "the predecessors, EVAL"
)

// readers returns podlink's rivals for reading an existing link.
func (r *rig) readers() []rival {
	hget := func(name string, client redis.Cmdable) rival {
		return rival{name: name, call: func(ctx context.Context, n int) error {
			return client.HGet(ctx, podlinkKey(uid(n)), service).Err()
		}}
	}
	return []rival{hget(plainHGet, r.plain), hget(autoHGet, r.auto), {
		name: plainGet,
		call: func(ctx context.Context, n int) error {
			return r.plain.Get(ctx, predecessorKeys(uid(n), service)[0]).Err()
		},
	}}
}

// writers returns podlink's rivals for creating or changing a link. fresh is that of the rivals.
func (r *rig) writers(fresh func(t *testing.T)) []rival {
	evalsha := func(name string, client redis.Cmdable) rival {
		return rival{name: name, fresh: fresh, call: func(ctx context.Context, n int) error {
			return orNull(client.EvalSha(ctx, r.sha, []string{driverKey(userOf(n, fresh))}, service, value(nextPod(n))).Err())
		}}
	}
	return []rival{evalsha(plainEvalSHA, r.plain), evalsha(autoEvalSHA, r.auto), {
		name: predecessorsE, fresh: fresh,
		call: func(ctx context.Context, n int) error {
			return orNull(r.plain.Eval(ctx, predecessors, predecessorKeys(userOf(n, fresh), service), service, nextPod(n)).Err())
		},
	}}
}

// userOf returns the user of the n-th call: a new one each time, or one with a link.
func userOf(n int, fresh func(t *testing.T)) string {
	if fresh != nil {
		return user(n)
	}
	return uid(n)
}

// orNull ignores redis.Nil, the null of a script.
func orNull(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// commandTime returns the time that Redis has spent on calls since the last CONFIG RESETSTAT: on their scripts or, without any, on
// reads. A script's time includes the commands it calls.
func commandTime(t *testing.T, client *redis.Client) time.Duration {
	t.Helper()
	if scripts := redistest.StatsOf(t, client, "eval", "evalsha"); scripts.Calls > 0 {
		return scripts.Time
	}
	return redistest.StatsOf(t, client, "hget", "get").Time
}
