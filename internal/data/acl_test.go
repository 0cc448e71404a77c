package data

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// The comments before the ACL rules in docs/operations.md.
const (
	forAll       = "on every server"
	forCluster   = "and with mode cluster"
	forReplicas  = "and with wait_replicas"
	forDB        = "and with a db other than 0"
	forSentinels = "on the sentinels"
)

// documentedUsers returns the rules of the lines "ACL SETUSER podlink ..." in docs/operations.md, by the comment before
// each.
func documentedUsers(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	users := make(map[string][]string)
	comment := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if rules, ok := strings.CutPrefix(line, "ACL SETUSER podlink "); ok {
			users[comment] = strings.Fields(strings.ReplaceAll(rules, ">PASSWORD", ">secret"))
		}
		comment = strings.TrimPrefix(line, "# ")
	}
	require.Len(t, users, 5)
	return users
}

// restricted is a Redis deployment on which podlink logs in as the documented user.
type restricted struct {
	store     option
	servers   []*redis.Client // all servers that have the user
	sentinels []*redis.Client
}

// userModes starts a deployment per mode, and names the comments whose rules it needs.
var userModes = map[string]struct {
	comments []string
	start    func(t *testing.T) restricted
}{
	"standalone": {[]string{forAll}, func(t *testing.T) restricted {
		server := redistest.Start(t)
		return restricted{store: onServer(server.Addr()), servers: []*redis.Client{server.Client(t)}}
	}},
	"another db": {[]string{forAll, forDB}, func(t *testing.T) restricted {
		server := redistest.Start(t)
		store := func(c *testOptions) {
			onServer(server.Addr())(c)
			c.DB = 1
		}
		return restricted{store: store, servers: []*redis.Client{server.Client(t)}}
	}},
	"wait_replicas": {[]string{forAll, forReplicas}, func(t *testing.T) restricted {
		server := redistest.Start(t)
		redistest.StartReplica(t, server.Addr())
		store := func(c *testOptions) {
			onServer(server.Addr())(c)
			confirmedBy(1, time.Minute)(c)
		}
		return restricted{store: store, servers: []*redis.Client{server.Client(t)}}
	}},
	"sentinel": {[]string{forAll}, func(t *testing.T) restricted {
		set := redistest.StartSentinel(t, redistest.SentinelOptions{})
		store := func(c *testOptions) {
			onSentinel(set)(c)
			c.SentinelUsername, c.SentinelPassword = "podlink", "secret"
		}
		g := restricted{store: store}
		for _, server := range set.Servers() {
			g.servers = append(g.servers, server.Client(t))
		}
		for _, addr := range set.Addrs() {
			sentinel := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true})
			t.Cleanup(func() { _ = sentinel.Close() })
			g.sentinels = append(g.sentinels, sentinel)
		}
		return g
	}},
	"cluster": {[]string{forAll, forCluster}, func(t *testing.T) restricted {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
		g := restricted{store: onCluster(cluster.Addrs())}
		// The slot of the populated link is being migrated.
		key := Keyspace("podlink").links("ns", populated.uid)
		for _, server := range cluster.Nodes() {
			g.servers = append(g.servers, server.Client(t))
		}
		from, to := g.servers[0], g.servers[1]
		if cluster.Owner(key) != cluster.Nodes()[0] {
			from, to = to, from
		}
		startMove(t, redistest.Slot(key), from, to)
		return g
	}},
}

// setUser gives podlink's user the rules. Those of the page begin with reset, so that it has exactly these.
func setUser(t *testing.T, servers []*redis.Client, rules []string) {
	t.Helper()
	command := []any{"ACL", "SETUSER", "podlink"}
	for _, rule := range rules {
		command = append(command, rule)
	}
	for _, server := range servers {
		require.NoError(t, server.Do(t.Context(), command...).Err())
		require.NoError(t, server.ACLLogReset(t.Context()).Err())
	}
}

// open returns a store that logs in as the user.
func (g restricted) open(t *testing.T) *testStore {
	t.Helper()
	return openStore(t, withLongTimeouts, g.store, withUser, prefix("podlink"))
}

// use makes every call of podlink on Redis, and returns the first error.
func (g restricted) use(t *testing.T) error {
	t.Helper()
	store := g.open(t)
	if err := store.Check(t.Context()); err != nil {
		return err
	}
	for _, server := range g.servers {
		require.NoError(t, server.ScriptFlush(t.Context()).Err()) // So that EVAL is used, too.
	}
	for _, call := range repoCalls {
		if err := call.do(t.Context(), reposOf(store), populated); !isAnswer(err) {
			return err
		}
	}
	// While a slot moves, a walk is refused.
	if _, _, err := store.fleet.ScanLinks(t.Context(), "", 10); err != nil && !errors.Is(err, biz.ErrScanMoved) {
		return err
	}
	return g.useJobs(t, store)
}

// useJobs makes the calls that only jobs make, and returns the first error.
func (g restricted) useJobs(t *testing.T, store *testStore) error {
	t.Helper()
	temporary := storedLinks{keys: []biz.StoredLinks{{Namespace: "ns", UID: "nobody"}}, expiring: []int{0}}
	if err := store.fleet.addUnending(t.Context(), &temporary); err != nil {
		return err
	}
	jobs := reposOf(store).Jobs
	created, err := jobs.Create(t.Context(), biz.Job{
		Key: biz.JobKey{Namespace: "ns", ID: "job"}, Spec: biz.JobSpec{Kind: biz.Verify, Pod: biz.NoPod},
	})
	if err != nil {
		return err
	}
	listed, err := jobs.List(t.Context(), "ns", "", 10)
	if err != nil {
		return err
	}
	unfinished, err := jobs.Unfinished(t.Context())
	if err == nil && (len(listed) != 1 || len(unfinished) != 1) {
		err = fmt.Errorf("%s: %d listed and %d unfinished", created.Key, len(listed), len(unfinished))
	}
	return err
}

// deniedRights returns the commands and keys that the ACL has denied since setUser.
func deniedRights(t *testing.T, servers []*redis.Client) []string {
	t.Helper()
	var found []string
	for _, server := range servers {
		entries, err := server.ACLLog(t.Context(), 100).Result()
		require.NoError(t, err)
		for _, entry := range entries {
			found = append(found, entry.Reason+" "+entry.Object)
		}
	}
	return found
}

// optionalRules are the rules without which podlink works, with a warning in its log.
var optionalRules = []string{"+info", "+script|load"}

// TestDocumentedUsers: the users of docs/operations.md have all permissions that podlink needs, and no others.
func TestDocumentedUsers(t *testing.T) {
	t.Parallel()
	users := documentedUsers(t)
	for name, mode := range userModes {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			g := mode.start(t)
			var rules []string
			for _, comment := range mode.comments {
				rules = append(rules, users[comment]...)
			}
			setUser(t, g.sentinels, users[forSentinels])
			setUser(t, g.servers, rules)
			require.NoError(t, g.use(t))
			require.Empty(t, deniedRights(t, g.servers))
			require.Empty(t, deniedRights(t, g.sentinels))
			for i, rule := range rules {
				if strings.ContainsAny(rule[:1], "+~") {
					setUser(t, g.servers, slices.Delete(slices.Clone(rules), i, i+1))
					for _, server := range g.servers { // podlink names the layout of a new store only. Replicas refuse this.
						_ = server.FlushAll(t.Context()).Err()
					}
					if slices.Contains(optionalRules, rule) {
						require.NoError(t, g.use(t), "without %s", rule)
					} else {
						require.Error(t, g.use(t), "without %s", rule)
					}
				}
			}
		})
	}
}

// TestDocumentedUserOfSentinels: a sentinel denies nothing to the user of docs/operations.md, and denies something if any
// rule is missing. Except for the lookup of the primary, a missing rule does not fail the check.
func TestDocumentedUserOfSentinels(t *testing.T) {
	parallel(t)
	users := documentedUsers(t)
	g := userModes["sentinel"].start(t)
	setUser(t, g.servers, users[forAll])
	// pingInterval is a bit more than the interval of the driver's health checks of a subscription.
	const pingInterval = 4 * time.Second
	rules := users[forSentinels]
	setUser(t, g.sentinels, rules)
	store := g.open(t)
	require.NoError(t, store.Check(t.Context()))
	time.Sleep(pingInterval)
	require.Empty(t, deniedRights(t, g.sentinels))
	require.True(t, slices.ContainsFunc(g.sentinels, func(sentinel *redis.Client) bool {
		for client := range strings.Lines(sentinel.ClientList(context.Background()).Val()) {
			if strings.Contains(client, " sub=2 ") && strings.Contains(client, " user=podlink ") {
				return true
			}
		}
		return false
	}), "it is subscribed to failover events")

	for i, rule := range rules {
		if strings.ContainsAny(rule[:1], "+&") {
			setUser(t, g.sentinels, slices.Delete(slices.Clone(rules), i, i+1))
			store := g.open(t)
			err := store.Check(t.Context())
			require.Equal(t, rule == "+sentinel|get-master-addr-by-name", err != nil, "without %s: %v", rule, err)
			require.Eventually(t, func() bool { return len(deniedRights(t, g.sentinels)) > 0 },
				2*pingInterval, 10*time.Millisecond, "without %s", rule)
		}
	}
}
