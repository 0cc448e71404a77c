package data

import (
	"context"
	"crypto/rand"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
)

// effect is what a call does to the store.
type effect int

const (
	reads effect = iota
	stores
	removes
	releases
	cordons
)

// subject is the uid and the pod of a call.
type subject struct {
	uid string
	pod biz.PodID
}

// The subject that populate stores, and another one.
var (
	populated = subject{uid: "user-1", pod: 1}
	fresh     = subject{uid: "user-2", pod: 2}
)

func (n subject) link() biz.LinkKey {
	return biz.LinkKey{Namespace: "ns", UID: n.uid, Service: "game"}
}

var game = biz.ServiceKey{Namespace: "ns", Service: "game"}

// repoCall is a call of a repo method.
type repoCall struct {
	name   string // name of the method, and the variant
	kind   string // kind of the key
	effect effect
	do     func(ctx context.Context, r biztest.Repos, n subject) error
}

func (c repoCall) mutation() bool { return c.effect != reads }

// key returns the key that the call works on.
func (c repoCall) key(s *testStore, n subject) string {
	switch c.kind {
	case "link":
		return s.keys.links("ns", n.uid)
	case "service":
		return s.keys.service(game)
	case "feed":
		return s.keys.feed(game)
	case "index":
		return s.keys.index(game, populated.pod)
	case "indexed":
		return s.keys.indexed(game)
	case "services":
		return s.keys.services()
	case "writers":
		return s.keys.writers()
	case "fleet":
		return s.keys.fleet()
	case "lease":
		return s.keys.lease(n.uid)
	default:
		return s.keys.workload("ns", "game")
	}
}

// repoCalls has every method of every repo.
var repoCalls = []repoCall{
	{"Links.Set", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.Set(ctx, n.link(), n.pod, 600, biz.SetTerms{}))
	}},
	{"Links.Set persistent", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.Set(ctx, n.link(), n.pod+10, biz.Forever, biz.SetTerms{}))
	}},
	{"Links.Set with a claim", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		above := biz.Epoch(1)
		return second(r.Links.Set(ctx, n.link(), n.pod+20, 600, biz.SetTerms{Claim: 7, Above: &above}))
	}},
	{"Links.TrySet", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.TrySet(ctx, n.link(), n.pod, 600, nil))
	}},
	{"Links.SetIfAbsent", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.SetIfAbsent(ctx, n.link(), n.pod, 600, biz.SetTerms{}))
	}},
	{"Links.SetIfEpoch", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.SetIfEpoch(ctx, n.link(), n.pod, biz.Forever, biz.MoveTerms{Epoch: 0}))
	}},
	{"Links.Remove", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.Remove(ctx, n.link(), 0, biz.RemoveTerms{}))
	}},
	{"Links.Remove and keep", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.Remove(ctx, n.link(), 600, biz.RemoveTerms{}))
	}},
	{"Links.RemoveWithID", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.RemoveWithID(ctx, n.link(), n.pod, 0))
	}},
	{"Links.RemoveWithID and keep", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.RemoveWithID(ctx, n.link(), n.pod, 600))
	}},
	{"Links.BatchSet", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return failureOf(r.Links.BatchSet(ctx, game, []biz.SetItem{{UID: n.uid, Pod: n.pod + 30, TTL: 600}}))
	}},
	{"Links.BatchSet if absent", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return failureOf(r.Links.BatchSet(ctx, game, []biz.SetItem{{UID: n.uid, Pod: n.pod, TTL: 600, IfAbsent: true}}))
	}},
	{"Links.BatchSetIfEpoch", "link", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return failureOf(r.Links.BatchSetIfEpoch(ctx, game, []biz.MoveItem{{UID: n.uid, Pod: n.pod, TTL: biz.Forever}}))
	}},
	{"Links.BatchRemove", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return failureOf(r.Links.BatchRemove(ctx, game, []biz.RemoveItem{{UID: n.uid}}))
	}},
	{"Links.BatchRemove and keep", "link", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return failureOf(r.Links.BatchRemove(ctx, game, []biz.RemoveItem{{UID: n.uid, Pod: &n.pod, Keep: 600}}))
	}},
	{"Links.Get", "link", reads, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.Get(ctx, n.link()))
	}},
	{"Links.GetIfPersist", "link", reads, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.GetIfPersist(ctx, n.link()))
	}},
	{"Links.BatchGet", "link", reads, func(ctx context.Context, r biztest.Repos, n subject) error {
		return firstOf(r.Links.BatchGet(ctx, "ns", "game", []string{"nobody", n.uid, "temporary"}))
	}},
	{"Links.List", "link", reads, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Links.List(ctx, "ns", n.uid))
	}},
	{"Pods.Set", "service", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		_, err := r.Pods.Set(ctx, game, biz.Report{Pod: n.pod, State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity})
		return err
	}},
	{"Pods.Reserve", "service", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Pods.Reserve(ctx, game, biz.ReserveRequest{Linked: biz.NoPod}))
	}},
	{"Pods.Release", "service", releases, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Pods.Release(ctx, game, biz.Reservation{Outcome: biz.Reserved, Pod: n.pod, HeartbeatMs: 1700000000000})
	}},
	{"Pods.BatchReserve", "service", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return r.Pods.BatchReserve(ctx, game, []biz.ReserveRequest{{Linked: biz.NoPod}})[0].Err
	}},
	{"Pods.BatchRelease", "service", releases, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Pods.BatchRelease(ctx, game, []biz.Reservation{{Outcome: biz.Reserved, Pod: n.pod, HeartbeatMs: 1700000000000}})
	}},
	{"Pods.Cordon", "service", cordons, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Pods.Cordon(ctx, game, n.pod, biz.DenyNew, biz.Forever))
	}},
	{"Pods.Remove", "service", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Pods.Remove(ctx, game, n.pod))
	}},
	{"Pods.Get", "service", reads, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Pods.Get(ctx, game, n.pod))
	}},
	{"Pods.List", "service", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Pods.List(ctx, game))
	}},
	{"Pods.View", "service", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Pods.View(ctx, game))
	}},
	{"Workloads.Set", "workload", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Workloads.Set(ctx, game, "up"))
	}},
	{"Workloads.Remove", "workload", removes, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Workloads.Remove(ctx, game))
	}},
	{"Workloads.Get", "workload", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Workloads.Get(ctx, game))
	}},
	{"Workloads.BatchGet", "workload", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Workloads.BatchGet(ctx, "ns", []string{"none", "game"}))
	}},
	{"Feed.Flush changes", "feed", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Feed.Flush(ctx, []biz.FlushPart{{Service: game, Changes: []biz.Change{n.change()}}})[0]
	}},
	{"Feed.Flush updates", "index", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Feed.Flush(ctx, []biz.FlushPart{{Service: game, Pod: populated.pod, Updates: n.updates()}})[0]
	}},
	{"Feed.Flush a service", "services", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		key := biz.ServiceKey{Namespace: "ns", Service: rand.Text()} // A known one is not added again.
		return r.Feed.Flush(ctx, []biz.FlushPart{{Service: key}})[0]
	}},
	{"Feed.Beat", "writers", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Feed.Beat(ctx, n.uid))
	}},
	{"Feed.Leave", "writers", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Feed.Leave(ctx, n.uid, 0)
	}},
	{"Feed.Gap", "fleet", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return r.Feed.Gap(ctx, biz.GapStore)
	}},
	{"Feed.ReadFeed", "feed", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Feed.ReadFeed(ctx, game, "0-0", 10))
	}},
	{"Feed.ReadFeed the end", "feed", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Feed.ReadFeed(ctx, game, "", 10))
	}},
	{"Index.Services", "services", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Index.Services(ctx, "ns"))
	}},
	{"Index.IndexedPods", "indexed", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return second(r.Index.IndexedPods(ctx, game))
	}},
	{"Index.Entries", "index", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		_, _, err := r.Index.Entries(ctx, game, populated.pod, "", 10)
		return err
	}},
	{"Index.Completeness", "fleet", reads, func(ctx context.Context, r biztest.Repos, _ subject) error {
		_, _, err := r.Index.Completeness(ctx)
		return err
	}},
	{"Index.Cover", "fleet", stores, func(ctx context.Context, r biztest.Repos, _ subject) error {
		return r.Index.Cover(ctx, 1)
	}},
	{"Index.Lease", "lease", stores, func(ctx context.Context, r biztest.Repos, n subject) error {
		return second(r.Index.Lease(ctx, n.uid, "holder", time.Minute))
	}},
	{"Index.Release", "lease", removes, func(ctx context.Context, r biztest.Repos, n subject) error {
		return r.Index.Release(ctx, n.uid, "holder")
	}},
}

// change is the change that links the subject to its pod.
func (n subject) change() biz.Change {
	link := biz.Link{Key: n.link(), Pod: n.pod, TTL: biz.Forever, Epoch: 1_700_000_000_000_000}
	return biz.Change{Kind: biz.Linked, Link: link, Previous: biz.NoPod, Time: time.UnixMilli(1_700_000_000_000)}
}

// updates adds the subject to the index of a pod.
func (n subject) updates() []biz.IndexUpdate {
	return []biz.IndexUpdate{{Op: biz.AddEntry, Entry: biz.IndexEntry{UID: n.uid, Epoch: 1_700_000_000_000_000}}}
}

func second[T any](_ T, err error) error { return err }

// failureOf returns the error of a batch of one.
func failureOf(results []biz.ChangeResult) error { return results[0].Err }

// firstOf returns the error of a batch, or that of its first link with one.
func firstOf(results []biz.LinkResult, err error) error {
	for _, result := range results {
		if err == nil {
			err = result.Err
		}
	}
	return err
}

// keyless are the methods that don't call the store; the one that works on no key: linkscan_test.go has its faults; and those that work
// on several keys: job_test.go has theirs.
var keyless = []string{
	"Feed.Store", "Index.ScanLinks",
	"Jobs.Create", "Jobs.Get", "Jobs.List", "Jobs.Cancel", "Jobs.Unfinished", "Jobs.Take", "Jobs.Save",
}

func TestRepoCallsHaveEveryMethod(t *testing.T) {
	repos := reflect.TypeFor[biztest.Repos]()
	for field := range repos.NumField() {
		repo := repos.Field(field)
		for i := range repo.Type.NumMethod() {
			name := repo.Name + "." + repo.Type.Method(i).Name
			if slices.Contains(keyless, name) {
				continue
			}
			require.Condition(t, func() bool {
				for _, call := range repoCalls {
					if method, _, _ := strings.Cut(call.name, " "); method == name {
						return true
					}
				}
				return false
			}, "no call of %s", name)
		}
	}
}

// populate stores the links of the populated subject, a READY pod, a workload, and the subject in the feed, the index, the writers and
// the leases. The store's Fleet then knows the service and the pod.
func populate(t *testing.T, store *testStore) {
	t.Helper()
	ctx, r := context.Background(), reposOf(store)
	require.NoError(t, second(r.Links.Set(ctx, populated.link(), populated.pod, biz.Forever, biz.SetTerms{})))
	temporary := subject{uid: "temporary"}.link()
	require.NoError(t, second(r.Links.Set(ctx, temporary, 1, 600, biz.SetTerms{})))
	_, err := r.Pods.Set(ctx, game, biz.Report{Pod: populated.pod, State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity})
	require.NoError(t, err)
	require.NoError(t, second(r.Pods.Cordon(ctx, game, populated.pod, biz.Ready, biz.Forever)))
	require.NoError(t, second(r.Workloads.Set(ctx, game, "up")))
	for _, part := range []biz.FlushPart{
		{Service: game, Changes: []biz.Change{populated.change()}},
		{Service: game, Pod: populated.pod, Updates: populated.updates()},
	} {
		require.NoError(t, r.Feed.Flush(ctx, []biz.FlushPart{part})[0])
	}
	require.NoError(t, second(r.Feed.Beat(ctx, populated.uid)))
	require.NoError(t, second(r.Index.Lease(ctx, populated.uid, "holder", time.Hour)))
}

// isAnswer reports whether err is a reply of a working store: no error, or not found.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, biz.ErrPodNotFound) || errors.Is(err, biz.ErrWorkloadNotFound)
}
