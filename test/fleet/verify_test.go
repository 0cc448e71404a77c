//go:build fleet

package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// planted is how many faults of each kind there are.
const planted = 10

// unreported is a pod without a report, and oldEpoch an epoch that a planted link may have.
const (
	unreported int32 = 99
	oldEpoch         = "1795408417769593"
)

// fault is a kind of fault: how the one with a number is planted in Redis, and removed again.
type fault struct {
	plant, remove func(ctx context.Context, pipe redis.Pipeliner, n int)
}

// faults are all kinds of faults that a VERIFY knows.
func (f *fleet) faults(links map[string]link) []fault {
	expiry := time.Now().Add(24 * time.Hour)
	return []fault{
		{ // A link that the index lacks.
			plant: func(ctx context.Context, pipe redis.Pipeliner, n int) { pipe.HDel(ctx, indexKey(podOf(n)), uidOf(n)) },
			remove: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.HSet(ctx, indexKey(podOf(n)), uidOf(n), links[uidOf(n)].epoch)
			},
		},
		{ // An entry without a link, or whose link is to another pod.
			plant: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.HSet(ctx, indexKey(2), stale(n), oldEpoch)
			},
			remove: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.HDel(ctx, indexKey(2), stale(n))
			},
		},
		{ // A link to a pod that has no report.
			plant: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.HSet(ctx, linkKey(nameOf("lost", n)), service, fmt.Sprintf("%d %s 0", unreported, oldEpoch))
				pipe.HSet(ctx, indexKey(unreported), nameOf("lost", n), oldEpoch)
				pipe.SAdd(ctx, indexedPods, unreported)
			},
			remove: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.Del(ctx, linkKey(nameOf("lost", n)), indexKey(unreported))
				pipe.SRem(ctx, indexedPods, unreported)
			},
		},
		{ // A field that podlink did not write: alone, beside a link, or a key that is no hash.
			plant: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				switch n % 3 {
				case 0:
					pipe.HSet(ctx, linkKey(nameOf("foreign", n)), service, "not a link")
				case 1:
					pipe.HSet(ctx, linkKey(uidOf(*allLinks/2+n)), "chat", "not a link")
				default:
					pipe.Set(ctx, linkKey(nameOf("foreign", n)), "not a hash", 0)
				}
			},
			remove: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.Del(ctx, linkKey(nameOf("foreign", n)))
				pipe.HDel(ctx, linkKey(uidOf(*allLinks/2+n)), "chat")
			},
		},
		{ // A user with temporary links only whose key never disappears.
			plant: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.HSet(ctx, linkKey(nameOf("brief", n)), service, fmt.Sprintf("4 %s %d", oldEpoch, expiry.UnixMilli()))
				pipe.HSet(ctx, indexKey(4), nameOf("brief", n), fmt.Sprintf("%s %d", oldEpoch, expiry.Unix()+1))
			},
			remove: func(ctx context.Context, pipe redis.Pipeliner, n int) {
				pipe.Del(ctx, linkKey(nameOf("brief", n)))
				pipe.HDel(ctx, indexKey(4), nameOf("brief", n))
			},
		},
	}
}

func nameOf(kind string, n int) string { return fmt.Sprintf("%s:%d", kind, n) }

// stale is the user of an entry without a link, or of one whose link is to another pod.
func stale(n int) string {
	if n%2 == 0 {
		return nameOf("ghost", n)
	}
	return uidOf(n*pods + 3)
}

// inRedis does something for each fault.
func (f *fleet) inRedis(of []fault, do func(one fault, pipe redis.Pipeliner, n int)) {
	f.Helper()
	_, err := f.redis.Pipelined(f.Context(), func(pipe redis.Pipeliner) error {
		for _, one := range of {
			for n := range planted {
				do(one, pipe, n)
			}
		}
		return nil
	})
	require.NoError(f, err)
}

// requireVerified plants faults, checks that a VERIFY finds them and no other, and repairs what it can and nothing else.
func (f *fleet) requireVerified() {
	f.Helper()
	all := &v1.Job_Faults{
		EntriesWithoutLink: planted, LinksWithoutEntry: planted, LinksWithoutPod: planted, ForeignFields: planted, KeysWithoutExpiry: planted,
	}
	f.requireFaults("verify", false, &v1.Job_Faults{})
	links, gaps := f.stored(), f.gaps()
	faults := f.faults(links)
	f.inRedis(faults, func(one fault, pipe redis.Pipeliner, n int) { one.plant(f.Context(), pipe, n) })
	f.requireFaults("verify-planted", false, all)
	f.requireFaults("verify-repair", true, all)
	f.requireFaults("verify-repaired", false, &v1.Job_Faults{
		LinksWithoutPod: planted, ForeignFields: planted, KeysWithoutExpiry: planted,
	})
	for n := range planted {
		epoch, err := f.redis.HGet(f.Context(), indexKey(podOf(n)), uidOf(n)).Int64()
		require.NoError(f, err, "the entry of a link")
		require.Equal(f, links[uidOf(n)].epoch, epoch)
		has, err := f.redis.HExists(f.Context(), indexKey(2), stale(n)).Result()
		require.NoError(f, err)
		require.False(f, has, "an entry without a link")
	}
	require.Equal(f, gaps, f.gaps(), "a census may have repaired the index: the machine is too busy")
	f.inRedis(faults, func(one fault, pipe redis.Pipeliner, n int) { one.remove(f.Context(), pipe, n) })
	f.requireSame(links, f.stored())
	f.awaitComplete()
}

// requireFaults runs a VERIFY, and checks what it has found.
func (f *fleet) requireFaults(name string, repair bool, want *v1.Job_Faults) {
	f.Helper()
	job := f.done(f.create(&v1.CreateJobRequest{Kind: v1.Job_VERIFY, Repair: repair, Reason: name}))
	got := job.GetFaults()
	if got == nil {
		got = &v1.Job_Faults{}
	}
	require.True(f, proto.Equal(want, got), "%s: want %s, got %s", name, want, got)
	require.GreaterOrEqual(f, job.GetSeen(), int64(*allLinks))
	measured.took("", duration(job), "%s: %d entries without link, %d links without entry, %d without pod, %d foreign, %d unending", name,
		got.GetEntriesWithoutLink(), got.GetLinksWithoutEntry(), got.GetLinksWithoutPod(), got.GetForeignFields(), got.GetKeysWithoutExpiry())
}

// requireSame checks that no link has changed.
func (f *fleet) requireSame(want, got map[string]link) {
	f.Helper()
	require.Equal(f, len(want), len(got))
	for uid, one := range want {
		if got[uid] != one {
			require.Fail(f, "a link has changed", "%s: %v, now %v", uid, one, got[uid])
		}
	}
}
