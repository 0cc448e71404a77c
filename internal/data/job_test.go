package data

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// jobs returns the repo of the jobs.
func (s *testStore) jobs(most int) biz.JobRepo {
	return NewJobRepo(s.Runner, s.keys, JobLimits{MaxJobs: most})
}

func verifyJob(id string) biz.Job {
	return biz.Job{
		Key: biz.JobKey{Namespace: "ns", ID: id}, Spec: biz.JobSpec{Kind: biz.Verify, Pod: biz.NoPod}, CreatedBy: "token:ops",
	}
}

// TestForeignJobs: a job that podlink did not write is reported, and left unchanged.
func TestForeignJobs(t *testing.T) {
	ours := map[string]any{
		"created": "1700000000000", "started": "0", "ended": "0", "lease": "0", "expiry": "0", "cancel": "0", "state": "pending",
		"spec": `{"kind":"VERIFY","pod":-1}`, "by": "", "progress": "",
	}
	onEachStore(t, func(t *testing.T, store *testStore) {
		ctx, repo, key := t.Context(), store.jobs(10), verifyJob("a").Key
		calls := map[string]func() error{
			"Get":    func() error { return second(repo.Get(ctx, key)) },
			"Create": func() error { return second(repo.Create(ctx, verifyJob("a"))) },
			"Cancel": func() error { return second(repo.Cancel(ctx, key)) },
			"Take":   func() error { _, _, err := repo.Take(ctx, key); return err },
			"Save": func() error {
				return second(repo.Save(ctx, key, 1, biz.JobRunning, biz.JobProgress{}))
			},
		}
		fill := func(t *testing.T, field, value string) string {
			t.Helper()
			name := store.keys.job(key)
			require.NoError(t, store.client.HSet(ctx, name, ours).Err())
			require.NoError(t, store.client.HSet(ctx, name, field, value).Err())
			return name
		}
		for field, values := range map[string][]string{
			"created": {"", "now", "-1", "01", strings.Repeat("9", 400)}, "started": {"x", "1.5"}, "ended": {"-0"}, "lease": {"+1", ""},
			"expiry": {"soon"}, "cancel": {"yes"}, "state": {"", "PENDING", "lost"},
		} {
			for _, value := range values {
				for name, call := range calls {
					if name == "Get" && (field == "expiry" || field == "cancel") {
						continue // It does not read them.
					}
					t.Run(fmt.Sprintf("%s/%s %.20q", name, field, value), func(t *testing.T) {
						key := fill(t, field, value)
						before := read(t, store, key)
						require.ErrorIs(t, call(), biz.ErrStoreDataCorrupt)
						require.Equal(t, before, read(t, store, key))
						require.NoError(t, store.client.Del(ctx, key).Err())
					})
				}
			}
		}
		for field, values := range map[string][]string{"spec": {"", "x", "{}", `{"kind":7}`}, "progress": {"x", "[1]"}} {
			for _, value := range values {
				t.Run(fmt.Sprintf("Get/%s %.20q", field, value), func(t *testing.T) {
					key := fill(t, field, value)
					require.ErrorIs(t, calls["Get"](), biz.ErrStoreDataCorrupt)
					require.NoError(t, store.client.Del(ctx, key).Err())
				})
			}
		}
		for name, call := range calls {
			t.Run(name+"/a text", func(t *testing.T) {
				require.NoError(t, store.client.Set(ctx, store.keys.job(key), "secret", 0).Err())
				require.ErrorIs(t, call(), biz.ErrStoreDataCorrupt)
				require.NoError(t, store.client.Del(ctx, store.keys.job(key)).Err())
			})
		}
	})
}

// TestJobsAreLimited: what has not ended counts, and repeated requests do not.
func TestJobsAreLimited(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		ctx, repo := t.Context(), store.jobs(2)
		for _, id := range []string{"a", "b", "a"} {
			require.NoError(t, second(repo.Create(ctx, verifyJob(id))))
		}
		_, err := repo.Create(ctx, verifyJob("c"))
		var limit *biz.LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, "limits.max_jobs", limit.Limit)
		_, err = repo.Get(ctx, verifyJob("c").Key)
		require.ErrorIs(t, err, biz.ErrJobNotFound)
		require.NoError(t, second(repo.Cancel(ctx, verifyJob("a").Key)))
		require.NoError(t, second(repo.Create(ctx, verifyJob("c"))))
	})
}

// TestQueuedJobsThatNeverWere: a podlink that dies between the queue and the job leaves an entry, which is dropped when it is old.
func TestQueuedJobsThatNeverWere(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		ctx, repo := t.Context(), store.jobs(10)
		now := float64(time.Now().UnixMilli())
		require.NoError(t, store.client.ZAdd(ctx, store.keys.jobQueue(), redis.Z{Score: now - 61_000, Member: "ns:old"},
			redis.Z{Score: now, Member: "ns:new"}).Err())
		for _, id := range []string{"old", "new"} {
			_, _, err := repo.Take(ctx, biz.JobKey{Namespace: "ns", ID: id})
			require.ErrorIs(t, err, biz.ErrJobNotFound)
		}
		left, err := repo.Unfinished(ctx)
		require.NoError(t, err)
		require.Equal(t, []biz.JobKey{{Namespace: "ns", ID: "new"}}, left)
	})
}

// TestJobsEndByThemselves: each key of a job has a time to live, and a list skips jobs that are gone.
func TestJobsEndByThemselves(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		ctx, repo := t.Context(), store.jobs(10)
		ttl := func(key string) time.Duration {
			return store.client.PTTL(context.Background(), key).Val().Round(time.Minute)
		}
		for _, id := range []string{"a", "b", "c"} {
			require.NoError(t, second(repo.Create(ctx, verifyJob(id))))
			time.Sleep(2 * time.Millisecond)
		}
		require.Equal(t, 30*24*time.Hour, ttl(store.keys.job(verifyJob("a").Key)))
		require.Equal(t, 30*24*time.Hour, ttl(store.keys.jobs("ns")))
		require.NoError(t, second(repo.Cancel(ctx, verifyJob("a").Key)))
		require.Equal(t, 7*24*time.Hour, ttl(store.keys.job(verifyJob("a").Key)))
		require.NoError(t, store.client.Del(ctx, store.keys.job(verifyJob("b").Key)).Err())
		require.NoError(t, store.client.Del(ctx, store.keys.job(verifyJob("c").Key)).Err())
		listed, err := repo.List(ctx, "ns", "", 2)
		require.NoError(t, err)
		require.Len(t, listed, 1, "the first page has none that is left, and is skipped")
		require.Equal(t, "a", listed[0].Key.ID)
		rest, err := repo.List(ctx, "ns", listed[0].At, 2)
		require.NoError(t, err)
		require.Empty(t, rest)
	})
}

// TestIndexedWithoutItsPod: lists don't look into the index of a pod that is missing among the indexed ones, so its entries are none.
func TestIndexedWithoutItsPod(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		key := biz.ServiceKey{Namespace: "game", Service: "room"}
		add := biz.FlushPart{Service: key, Pod: 2, Updates: []biz.IndexUpdate{{Op: biz.AddEntry, Entry: biz.IndexEntry{UID: "ann", Epoch: 5}}}}
		for _, err := range store.fleet.Flush(t.Context(), []biz.FlushPart{add}) {
			require.NoError(t, err)
		}
		indexed, err := store.fleet.Indexed(t.Context(), key, 2, []string{"ann", "bob"})
		require.NoError(t, err)
		require.Equal(t, []bool{true, false}, indexed)
		require.NoError(t, store.client.SRem(t.Context(), store.keys.indexed(key), "2").Err())
		indexed, err = store.fleet.Indexed(t.Context(), key, 2, []string{"ann", "bob"})
		require.NoError(t, err)
		require.Equal(t, []bool{false, false}, indexed)
	})
}
