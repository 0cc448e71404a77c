package data

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"podlink/internal/biz"
)

// TestViewOfAnyService: the view has every pod that the list has, whether one read gives it or many.
func TestViewOfAnyService(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		repos, reported := reposOf(store), 0
		for _, pods := range []int{0, 1, 84, 85, 86, 127, 128, 129, 255, 256, 257, 300} {
			for ; reported < pods; reported++ {
				_, err := repos.Pods.Set(t.Context(), game, biz.Report{
					Pod: biz.PodID(reported * 3), State: "up", TTL: 30, Load: int32(reported), Capacity: biz.NoCapacity,
				})
				require.NoError(t, err)
			}
			view, err := repos.Pods.View(t.Context(), game)
			require.NoError(t, err)
			require.Len(t, view.Pods, pods)
			for i, pod := range view.Pods {
				require.Equal(t, biz.PodID(i*3), pod.Pod)
				require.EqualValues(t, i, pod.Load)
			}
		}
	})
}

// TestForeignViews: random members in a service of many pods never make the view fail in another way than as foreign data.
func TestForeignViews(t *testing.T) {
	store := openStore(t, embeddedStore)
	repos := reposOf(store)
	for pod := range biz.PodID(130) {
		_, err := repos.Pods.Set(t.Context(), game, biz.Report{Pod: pod, State: "up", TTL: 30, Capacity: biz.NoCapacity})
		require.NoError(t, err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		score := rapid.Int64Range(-200, 200).Draw(rt, "score")
		member := rapid.StringMatching(`[0-9 *-]{0,40}`).Draw(rt, "member")
		require.NoError(t, store.writeMembers(t.Context(), map[int64]string{score: member}))
		if _, err := repos.Pods.View(t.Context(), game); err != nil {
			require.ErrorIs(t, err, biz.ErrStoreDataCorrupt)
		}
		require.NoError(t, store.client.ZRem(t.Context(), store.keys.service(game), member).Err())
	})
}
