package data

import (
	"testing"
	"time"

	"podlink/internal/biz/biztest"
	redistest "podlink/test/kit/redis"
)

// TestConformance runs the suite on every kind of store.
func TestConformance(t *testing.T) {
	waiting := confirmedBy(1, time.Minute) // It changes no answer.
	t.Run("embedded", func(t *testing.T) {
		// The embedded store lives in one process: there is no other view of it.
		t.Parallel()
		biztest.Run(t, sameRepos(reposOf(openStore(t, embeddedStore, longTimeouts))))
	})
	t.Run("standalone", func(t *testing.T) {
		t.Parallel()
		testConformance(t, onServer(redistest.Start(t).Addr()))
	})
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		testConformance(t, onSentinel(redistest.StartSentinel(t, redistest.SentinelOptions{})), waiting)
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1})
		testConformance(t, onCluster(cluster.Addrs()), waiting)
	})
}

// testConformance runs the suite on the store, as two processes see it; other settings are those of the second.
func testConformance(t *testing.T, store option, other ...option) {
	first := openStore(t, store, longTimeouts)
	second := openStore(t, append(other, store, longTimeouts, prefix(string(first.keys)))...)
	biztest.Run(t, sameRepos(reposOf(first)), sameRepos(reposOf(second)))
}

// longTimeouts is a store whose calls don't run out of time: the suite is about what calls do, and does hundreds at once.
func longTimeouts(c *testOptions) {
	c.PoolTimeout = time.Minute
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout = c.PoolTimeout, c.PoolTimeout, c.PoolTimeout
}

func reposOf(store *testStore) biztest.Repos {
	return biztest.Repos{
		Links:     NewLinkRepo(store.Runner, store.keys, store.metrics),
		Pods:      NewPodRepo(store.Runner, store.keys),
		Workloads: NewWorkloadRepo(store.Runner, store.keys),
	}
}

// sameRepos is a factory of one store: every test of the suite has a namespace of its own.
func sameRepos(repos biztest.Repos) func(*testing.T) biztest.Repos {
	return func(*testing.T) biztest.Repos { return repos }
}
