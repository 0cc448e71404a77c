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
		biztest.Run(t, always(reposOf(openStore(t, embeddedStore, patient))))
	})
	t.Run("standalone", func(t *testing.T) {
		t.Parallel()
		conforms(t, on(redistest.Start(t).Addr()))
	})
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		conforms(t, onSentinel(redistest.StartSentinel(t, redistest.SentinelOptions{})), waiting)
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 3, Replicas: 1})
		conforms(t, onCluster(cluster.Addrs()), waiting)
	})
}

// conforms runs the suite on the store, as two processes see it; other settings are those of the second.
func conforms(t *testing.T, store settings, other ...settings) {
	first := openStore(t, store, patient)
	second := openStore(t, append(other, store, patient, prefix(string(first.keys)))...)
	biztest.Run(t, always(reposOf(first)), always(reposOf(second)))
}

// patient is a store whose calls don't run out of time: the suite is about what calls do, and does hundreds at once.
func patient(c *testOptions) {
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

// always is a factory of one store: every test of the suite has a namespace of its own.
func always(repos biztest.Repos) func(*testing.T) biztest.Repos {
	return func(*testing.T) biztest.Repos { return repos }
}
