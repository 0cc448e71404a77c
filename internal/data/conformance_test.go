package data

import (
	"testing"
	"time"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
	redistest "podlink/test/kit/redis"
)

// TestConformance runs the suite on every kind of store.
func TestConformance(t *testing.T) {
	waiting := confirmedBy(1, time.Minute) // It must not change any reply.
	t.Run("embedded", func(t *testing.T) {
		// No other process can use the embedded store. It runs before the others: with the race detector it is so slow that what decays
		// within a minute would, if it had to share the machine.
		biztest.Run(t, sameRepos(reposOf(openStore(t, embeddedStore, withLongTimeouts))))
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

// testConformance runs the suite on the store, with two processes; other has further options of the second.
func testConformance(t *testing.T, store option, other ...option) {
	first := openStore(t, store, withLongTimeouts)
	second := openStore(t, append(other, store, withLongTimeouts, prefix(string(first.keys)))...)
	biztest.Run(t, sameRepos(reposOf(first)), sameRepos(reposOf(second)))
}

// withLongTimeouts avoids timeouts in tests that make hundreds of calls at once.
func withLongTimeouts(c *testOptions) {
	c.PoolTimeout = time.Minute
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout = c.PoolTimeout, c.PoolTimeout, c.PoolTimeout
}

// testLinkLimits are podlink's defaults.
var testLinkLimits = LinkLimits{MaxServices: 256}

func reposOf(store *testStore) biztest.Repos {
	configured := func(s biztest.PodSettings) biz.PodRepo {
		limits := PodLimits{MaxPods: s.MaxPods, ForgetAfter: s.ForgetAfter}
		return NewPodRepo(store.Runner, store.keys, limits, func() string { return s.Primaries })
	}
	return biztest.Repos{
		Links:      NewLinkRepo(store.Runner, store.keys, testLinkLimits, store.metrics),
		Pods:       configured(biztest.PodSettings{MaxPods: 4096, ForgetAfter: 24 * time.Hour, Primaries: "one"}),
		Workloads:  NewWorkloadRepo(store.Runner, store.keys),
		Feed:       store.fleet,
		Index:      store.fleet,
		Jobs:       NewJobRepo(store.Runner, store.keys, JobLimits{MaxJobs: 1000}),
		Configured: configured,
		Pass:       passed(store),
	}
}

// sameRepos returns a factory that always returns the repos: every test of the suite has its own namespace.
func sameRepos(repos biztest.Repos) func(*testing.T) biztest.Repos {
	return func(*testing.T) biztest.Repos { return repos }
}
