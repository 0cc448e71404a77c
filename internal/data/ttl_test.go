package data

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"podlink/internal/biz"
	"podlink/test/redistest"
)

// model is what the links of one uid are to be: a plain map, by service.
type model struct {
	store *Store
	links biz.LinkRepo
	uid   string
	want  map[string]biz.Link
	last  map[string]biz.Epoch // the greatest epoch so far
}

func (m *model) key(service string) biz.LinkKey {
	return biz.LinkKey{Namespace: "ns", UID: m.uid, Service: service}
}

func (m *model) current(service string) biz.Link {
	if link, ok := m.want[service]; ok {
		return link
	}
	return biz.NoLink(m.key(service))
}

// The inputs of the random calls: few pods, so that they meet; and times to live that don't end during the test.
var (
	someService = rapid.SampledFrom([]string{"chat", "game", "lobby"})
	somePod     = rapid.SampledFrom([]biz.PodID{0, 1, 2})
	someTTL     = rapid.SampledFrom([]biz.TTL{biz.Forever, 1000, 2000, 3000})
	someKeep    = rapid.SampledFrom([]int32{0, 0, 1500, 2500})
)

// someEpoch draws an expected epoch: none, the current one, no link's, or another one.
func (m *model) someEpoch(t *rapid.T, service string) *biz.Epoch {
	current := m.current(service).Epoch
	return rapid.SampledFrom([]*biz.Epoch{nil, &current, new(biz.Epoch), ptr(current + 1)}).Draw(t, "expected")
}

func ptr[T any](v T) *T { return &v }

// link is what a mutation that links has to do.
func (m *model) link(t *rapid.T, service string, pod biz.PodID, ttl biz.TTL, change biz.LinkChange, err error) {
	before := m.current(service)
	require.NoError(t, err)
	require.True(t, change.Applied)
	require.Equal(t, before.Pod, change.Previous)
	want := biz.Link{Key: m.key(service), Pod: pod, TTL: ttl, Epoch: before.Epoch}
	if before.Pod != pod {
		require.Greater(t, change.Link.Epoch, m.last[service], "a new owner gets a greater epoch than any before")
		want.Epoch = change.Link.Epoch
		m.last[service] = want.Epoch
	}
	require.Equal(t, want, change.Link)
	m.want[service] = want
}

// refuse is what a mutation whose condition does not hold has to do.
func (m *model) refuse(t *rapid.T, service string, change biz.LinkChange, err error) {
	require.NoError(t, err)
	current := m.current(service)
	require.False(t, change.Applied)
	require.Equal(t, current.Pod, change.Previous)
	sameLink(t, current, change.Link)
}

// mismatch checks the result of a call that expects an epoch; it is true when it was to be refused.
func (m *model) mismatch(t *rapid.T, service string, expected *biz.Epoch, err error) bool {
	current := m.current(service)
	if expected == nil || *expected == current.Epoch {
		return false
	}
	var mismatch *biz.EpochMismatchError
	require.ErrorAs(t, err, &mismatch)
	sameLink(t, current, mismatch.Current)
	return true
}

// unlink is what a removal has to do.
func (m *model) unlink(t *rapid.T, service string, keep int32, change biz.LinkChange, err error) {
	before := m.current(service)
	if !before.Exists() {
		m.refuse(t, service, change, err)
		return
	}
	require.NoError(t, err)
	require.True(t, change.Applied)
	require.Equal(t, before.Pod, change.Previous)
	if keep == 0 {
		require.Equal(t, biz.NoLink(m.key(service)), change.Link)
		delete(m.want, service)
		return
	}
	before.TTL = biz.TTL(keep)
	require.Equal(t, before, change.Link)
	m.want[service] = before
}

// sameLink compares a link that was stored some time before.
func sameLink(t require.TestingT, want, got biz.Link) {
	if want.TTL > 0 {
		require.InDelta(t, float64(want.TTL), float64(got.TTL), 60)
		want.TTL, got.TTL = 0, 0
	}
	require.Equal(t, want, got)
}

// actions are the calls of a LinkRepo.
func (m *model) actions() map[string]func(*rapid.T) {
	ctx := context.Background()
	return map[string]func(*rapid.T){
		"Set": func(t *rapid.T) {
			service, pod, ttl := someService.Draw(t, "service"), somePod.Draw(t, "pod"), someTTL.Draw(t, "ttl")
			expected := m.someEpoch(t, service)
			change, err := m.links.Set(ctx, m.key(service), pod, ttl, expected)
			if !m.mismatch(t, service, expected, err) {
				m.link(t, service, pod, ttl, change, err)
			}
		},
		"TrySet": func(t *rapid.T) {
			service, pod, ttl := someService.Draw(t, "service"), somePod.Draw(t, "pod"), someTTL.Draw(t, "ttl")
			change, err := m.links.TrySet(ctx, m.key(service), pod, ttl)
			if current := m.current(service); current.Persistent() && current.Pod != pod {
				m.refuse(t, service, change, err)
			} else {
				m.link(t, service, pod, ttl, change, err)
			}
		},
		"SetIfAbsent": func(t *rapid.T) {
			service, pod, ttl := someService.Draw(t, "service"), somePod.Draw(t, "pod"), someTTL.Draw(t, "ttl")
			change, err := m.links.SetIfAbsent(ctx, m.key(service), pod, ttl)
			if m.current(service).Exists() {
				m.refuse(t, service, change, err)
			} else {
				m.link(t, service, pod, ttl, change, err)
			}
		},
		"Compute": func(t *rapid.T) {
			service, ttl := someService.Draw(t, "service"), someTTL.Draw(t, "ttl")
			current := m.current(service)
			pod := (current.Pod + 1) % 3 // A link's own pod is never chosen again.
			judged := rapid.SampledFrom([]biz.Epoch{0, current.Epoch}).Draw(t, "judged")
			change, err := m.links.Compute(ctx, m.key(service), pod, ttl, judged)
			if current.Exists() && judged != current.Epoch {
				m.refuse(t, service, change, err)
			} else {
				m.link(t, service, pod, ttl, change, err)
			}
		},
		"Remove": func(t *rapid.T) {
			service, keep := someService.Draw(t, "service"), someKeep.Draw(t, "keep")
			expected := m.someEpoch(t, service)
			change, err := m.links.Remove(ctx, m.key(service), keep, expected)
			if !m.mismatch(t, service, expected, err) {
				m.unlink(t, service, keep, change, err)
			}
		},
		"RemoveWithID": func(t *rapid.T) {
			service, pod, keep := someService.Draw(t, "service"), somePod.Draw(t, "pod"), someKeep.Draw(t, "keep")
			change, err := m.links.RemoveWithID(ctx, m.key(service), pod, keep)
			if m.current(service).Pod != pod {
				m.refuse(t, service, change, err)
			} else {
				m.unlink(t, service, keep, change, err)
			}
		},
		"": m.check,
	}
}

// check compares every read with the model, and the key's TTL with what its links ask for.
func (m *model) check(t *rapid.T) {
	ctx := context.Background()
	list, err := m.links.List(ctx, "ns", m.uid)
	require.NoError(t, err)
	require.Len(t, list, len(m.want))
	for i, service := range slices.Sorted(maps.Keys(m.want)) {
		sameLink(t, m.want[service], list[i])
	}
	service := someService.Draw(t, "read")
	want := m.current(service)
	link, err := m.links.Get(ctx, m.key(service))
	require.NoError(t, err)
	sameLink(t, want, link)
	links, err := m.links.BatchGet(ctx, "ns", service, []string{m.uid})
	require.NoError(t, err)
	sameLink(t, want, links[0])
	if !want.Persistent() {
		want = biz.NoLink(m.key(service))
	}
	link, err = m.links.GetIfPersist(ctx, m.key(service))
	require.NoError(t, err)
	require.Equal(t, want, link)
	m.checkTTL(t)
}

// checkTTL: the key has a TTL exactly when all its links are temporary, and it does not end before the last of them.
func (m *model) checkTTL(t *rapid.T) {
	longest, persistent := biz.TTL(0), false
	for _, link := range m.want {
		longest, persistent = max(longest, link.TTL), persistent || link.Persistent()
	}
	key := m.store.keys.links("ns", m.uid)
	left := m.store.client.PTTL(context.Background(), key).Val()
	switch {
	case len(m.want) == 0:
		require.EqualValues(t, -2, left, "no link, no key")
	case persistent:
		require.EqualValues(t, -1, left, "a TTL would take the persistent links along")
	default:
		expiry := m.latestExpiry(t, key)
		require.WithinDuration(t, time.Now().Add(time.Duration(longest)*time.Second), expiry, time.Minute)
		at := m.store.client.PExpireTime(context.Background(), key).Val()
		require.GreaterOrEqual(t, at, time.Duration(expiry.UnixMilli())*time.Millisecond, "never early")
		require.LessOrEqual(t, at, time.Duration(expiry.UnixMilli())*time.Millisecond+2*time.Second, "and soon after")
	}
}

// latestExpiry is the latest expiry in the key's fields, as docs/data-model.md describes them.
func (m *model) latestExpiry(t *rapid.T, key string) time.Time {
	var latest int64
	for _, value := range m.store.client.HGetAll(context.Background(), key).Val() {
		var pod, epoch, expiry int64
		_, err := fmt.Sscanf(value, "%d %d %d", &pod, &epoch, &expiry)
		require.NoError(t, err)
		latest = max(latest, expiry)
	}
	return time.UnixMilli(latest)
}

// TestLinksOfOneUID runs random calls on the links of one uid and compares every answer, and the key itself, with a
// model. That a persistent link never stands under a TTL is what keeps it.
func TestLinksOfOneUID(t *testing.T) {
	store := openStore(t, on(redistest.Start(t).Addr()))
	uids := 0
	rapid.Check(t, func(rt *rapid.T) {
		uids++
		m := &model{
			store: store, links: NewLinkRepo(store), uid: "user-" + strconv.Itoa(uids),
			want: make(map[string]biz.Link), last: make(map[string]biz.Epoch),
		}
		rt.Repeat(m.actions())
	})
}
