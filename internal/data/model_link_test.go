package data

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"podlink/internal/biz"
)

// storedLink is a live link of the model.
type storedLink struct {
	biz.Link           // as it was returned when it was stored
	since    time.Time // a time before that
}

// The generators for calls on links. They have few values, so that calls hit the same links, the extremes, and TTLs that
// don't expire during the test.
var (
	someUID     = rapid.SampledFrom([]string{"user:1", "user:2"})
	someService = rapid.SampledFrom([]string{"chat", "game"})
	somePod     = rapid.SampledFrom([]biz.PodID{0, 1, 2, math.MaxInt32})
	someTTL     = rapid.SampledFrom([]biz.TTL{biz.Forever, biz.Forever, 1000, 2000, math.MaxInt32})
	someClaim   = rapid.SampledFrom([]biz.Generation{0, 0, 1, 9, 10, 1<<52 - 1})
	someKeep    = rapid.SampledFrom([]int32{0, 0, 1500, math.MaxInt32})
)

func (m *model) someLink(t *rapid.T) biz.LinkKey {
	return biz.LinkKey{Namespace: m.namespace, UID: someUID.Draw(t, "uid"), Service: someService.Draw(t, "service")}
}

// current returns the current link, NoLink if there is none.
func (m *model) current(key biz.LinkKey) storedLink {
	if link, ok := m.links[key]; ok {
		return link
	}
	return storedLink{Link: biz.NoLink(key)}
}

// someExpected draws an expected epoch: unset, the current one, that of no link, an unused one, or the previous one.
func (m *model) someExpected(t *rapid.T, key biz.LinkKey) *biz.Epoch {
	current, last := m.current(key).Epoch, m.epochs[key]
	epochs := []*biz.Epoch{nil, nil, &current, new(biz.Epoch), &last, ptr(current + 1)}
	return epochs[rapid.IntRange(0, len(epochs)-1).Draw(t, "expected")]
}

// someAbove draws an epoch that a new one must exceed: unset, the last one, one before it, or one that is too far ahead of the
// clock. One that is a little ahead of it is for the conformance suite: after a removal epochs are those of the clock again.
func (m *model) someAbove(t *rapid.T, key biz.LinkKey) *biz.Epoch {
	last, now := m.epochs[key], biz.Epoch(time.Now().UnixMicro())
	const day = 24 * 60 * 60 * 1_000_000
	epochs := []*biz.Epoch{nil, nil, nil, new(biz.Epoch), &last, ptr(max(last-1, 0)), ptr(now - day), ptr(now + day + day/24)}
	return epochs[rapid.IntRange(0, len(epochs)-1).Draw(t, "above")]
}

// tooFarAhead checks the error of a call that must exceed an epoch. It returns whether the call had to fail.
func (m *model) tooFarAhead(t *rapid.T, call string, above *biz.Epoch, err error) bool {
	if above == nil || time.Until(time.UnixMicro(int64(*above))) < 24*time.Hour+time.Minute {
		return false
	}
	var invalid *biz.InvalidArgumentError
	agree(t, call+": too far ahead", true, errors.As(err, &invalid))
	agree(t, call+": too far ahead", "above_epoch", invalid.Field)
	return true
}

func ptr[T any](v T) *T { return &v }

func (m *model) linkSteps() steps {
	return steps{
		calls: map[string]func(*rapid.T){
			"Links.Set":             m.setLink,
			"Links.TrySet":          m.trySetLink,
			"Links.SetIfAbsent":     m.setLinkIfAbsent,
			"Links.SetIfEpoch":      m.computeLink,
			"Links.Remove":          m.removeLink,
			"Links.RemoveWithID":    m.removeLinkWithID,
			"Links.BatchSet":        m.batchSetLinks,
			"Links.BatchSetIfEpoch": m.batchComputeLinks,
			"Links.BatchRemove":     m.batchRemoveLinks,
		},
		time: map[string]func(*rapid.T){"a link expires": m.expire},
		reads: map[string]func(*rapid.T){
			"Links.Get":          m.getLink,
			"Links.GetIfPersist": m.getLinkIfPersist,
			"Links.BatchGet":     m.batchGetLinks,
			"Links.List":         m.listLinks,
			"the key's TTL":      m.keyTTL,
		},
	}
}

func (m *model) setLink(t *rapid.T) {
	key, item := m.someSet(t)
	change, err := m.repos.Links.Set(context.Background(), key, item.Pod, item.TTL, item.Terms)
	m.checkSet(t, "Links.Set", key, item, change, err)
}

// someSet draws a link and what to set.
func (m *model) someSet(t *rapid.T) (biz.LinkKey, biz.SetItem) {
	key := m.someLink(t)
	item := biz.SetItem{
		UID: key.UID, Pod: somePod.Draw(t, "pod"), TTL: someTTL.Draw(t, "ttl"),
		Terms: biz.SetTerms{
			Expected: m.someExpected(t, key), Claim: someClaim.Draw(t, "claim"), Above: m.someAbove(t, key), Own: someOwn(t),
		},
	}
	if item.Terms.Own != nil && rapid.Bool().Draw(t, "lasting or not") {
		item.Terms.Persistent = ptr(rapid.Bool().Draw(t, "lasting"))
	}
	return key, item
}

// someOwn draws the pod that a link must have: any, or one.
func someOwn(t *rapid.T) *biz.PodID {
	if rapid.IntRange(0, 3).Draw(t, "own") > 0 {
		return nil
	}
	return ptr(somePod.Draw(t, "own pod"))
}

func (m *model) someRemoval(t *rapid.T, key biz.LinkKey) biz.RemoveTerms {
	return biz.RemoveTerms{Expected: m.someExpected(t, key), Own: someOwn(t)}
}

func (m *model) checkSet(t *rapid.T, call string, key biz.LinkKey, item biz.SetItem, change biz.LinkChange, err error) {
	if m.tooFarAhead(t, call, item.Terms.Above, err) {
		return
	}
	pod, ttl, terms, current := item.Pod, item.TTL, item.Terms, m.current(key)
	if m.another(t, call, key, terms.Own, err) {
		return
	}
	if terms.Persistent != nil && *terms.Persistent != current.Persistent() {
		m.mismatched(t, call, key, err)
		return
	}
	if claims := terms.Claim != 0; claims && current.Pod == pod {
		switch {
		case current.Claim > terms.Claim:
			var superseded *biz.SupersededError
			agree(t, call+": superseded", true, errors.As(err, &superseded))
			agree(t, call+": superseded", biz.SupersededError{Generation: current.Claim}, *superseded)
			return
		case current.Claim == terms.Claim && (terms.Above == nil || *terms.Above < current.Epoch):
			m.link(t, call, key, pod, ttl, biz.SetTerms{}, change, err)
			return
		}
	}
	if !m.mismatch(t, call, key, terms.Expected, err) {
		m.link(t, call, key, pod, ttl, terms, change, err)
	}
}

func (m *model) trySetLink(t *rapid.T) {
	key, pod, ttl := m.someLink(t), somePod.Draw(t, "pod"), someTTL.Draw(t, "ttl")
	own := someOwn(t)
	change, err := m.repos.Links.TrySet(context.Background(), key, pod, ttl, own)
	if current := m.current(key); current.Persistent() && current.Pod != pod || own != nil && current.Pod != *own {
		m.refuse(t, "Links.TrySet", key, change, err)
	} else {
		m.link(t, "Links.TrySet", key, pod, ttl, biz.SetTerms{}, change, err)
	}
}

func (m *model) setLinkIfAbsent(t *rapid.T) {
	key, item := m.someSet(t)
	change, err := m.repos.Links.SetIfAbsent(context.Background(), key, item.Pod, item.TTL, item.Terms)
	m.checkSetIfAbsent(t, "Links.SetIfAbsent", key, item, change, err)
}

func (m *model) checkSetIfAbsent(t *rapid.T, call string, key biz.LinkKey, item biz.SetItem, change biz.LinkChange, err error) {
	switch {
	case m.tooFarAhead(t, call, item.Terms.Above, err):
	case m.current(key).Exists():
		m.refuse(t, call, key, change, err)
	default:
		m.link(t, call, key, item.Pod, item.TTL, item.Terms, change, err)
	}
}

func (m *model) computeLink(t *rapid.T) {
	key, item := m.someMove(t)
	change, err := m.repos.Links.SetIfEpoch(context.Background(), key, item.Pod, item.TTL, item.Terms)
	m.checkSetIfEpoch(t, "Links.SetIfEpoch", key, item, change, err)
}

// someMove draws a link and how to move it.
func (m *model) someMove(t *rapid.T) (biz.LinkKey, biz.MoveItem) {
	key := m.someLink(t)
	epoch := rapid.SampledFrom([]biz.Epoch{0, m.current(key).Epoch, m.epochs[key]}).Draw(t, "epoch")
	item := biz.MoveItem{
		UID: key.UID, Pod: somePod.Draw(t, "pod"), TTL: someTTL.Draw(t, "ttl"),
		Terms: biz.MoveTerms{Epoch: epoch, TemporaryOnly: rapid.Bool().Draw(t, "temporary only")},
	}
	if above := m.someAbove(t, key); above != nil {
		item.Terms.Above = *above
	}
	return key, item
}

func (m *model) checkSetIfEpoch(t *rapid.T, call string, key biz.LinkKey, item biz.MoveItem, change biz.LinkChange, err error) {
	current, move := m.current(key), item.Terms
	above := &move.Above
	if move.Above == 0 {
		above = nil
	}
	switch {
	case m.tooFarAhead(t, call, above, err):
	case current.Exists() && (move.Epoch != current.Epoch || move.TemporaryOnly && current.Persistent()):
		m.refuse(t, call, key, change, err)
	default:
		m.link(t, call, key, item.Pod, item.TTL, biz.SetTerms{Above: above}, change, err)
	}
}

func (m *model) removeLink(t *rapid.T) {
	key, keep := m.someLink(t), someKeep.Draw(t, "keep")
	terms := m.someRemoval(t, key)
	change, err := m.repos.Links.Remove(context.Background(), key, keep, terms)
	m.checkRemove(t, "Links.Remove", key, biz.RemoveItem{Keep: keep, Terms: terms}, change, err)
}

func (m *model) removeLinkWithID(t *rapid.T) {
	key, pod, keep := m.someLink(t), somePod.Draw(t, "pod"), someKeep.Draw(t, "keep")
	change, err := m.repos.Links.RemoveWithID(context.Background(), key, pod, keep)
	m.checkRemove(t, "Links.RemoveWithID", key, biz.RemoveItem{Keep: keep, Pod: &pod}, change, err)
}

func (m *model) checkRemove(t *rapid.T, call string, key biz.LinkKey, item biz.RemoveItem, change biz.LinkChange, err error) {
	switch {
	case item.Pod != nil && m.current(key).Pod != *item.Pod:
		m.refuse(t, call, key, change, err)
	case m.mismatch(t, call, key, item.Terms.Expected, err):
	case m.current(key).Exists() && m.another(t, call, key, item.Terms.Own, err):
	default:
		m.unlink(t, call, key, item.Keep, change, err)
	}
}

// link checks the result of a mutation that must link the key, and updates the model. Its terms are those of a new owner: a
// repeated claim has none.
func (m *model) link(
	t *rapid.T, call string, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms, change biz.LinkChange, err error,
) {
	succeeds(t, call, err)
	before := m.current(key)
	want := biz.Link{Key: key, Pod: pod, TTL: ttl, Epoch: before.Epoch, Claim: before.Claim}
	if before.Pod != pod || terms.Claim != 0 {
		want.Epoch, want.Claim = change.Link.Epoch, terms.Claim
		m.checkEpoch(t, call, key, terms.Above, want.Epoch)
	}
	kept := before.Link == want && want.Persistent()
	agree(t, call, biz.LinkChange{Applied: true, Previous: before.Pod, Link: want, Kept: kept}, change)
	m.links[key] = storedLink{want, m.before}
}

// checkEpoch checks the epoch of a new owner: greater than any before and than above, and the store's time unless that is behind.
func (m *model) checkEpoch(t *rapid.T, call string, key biz.LinkKey, above *biz.Epoch, epoch biz.Epoch) {
	least := m.epochs[key]
	if above != nil {
		least = max(least, *above)
	}
	agree(t, call+": the epoch grows", true, epoch > least)
	agree(t, call+": the epoch is the time", true, epoch == least+1 || nearNow(time.UnixMicro(int64(epoch))))
	m.epochs[key] = epoch
}

// refuse checks the result of a mutation whose condition does not hold.
func (m *model) refuse(t *rapid.T, call string, key biz.LinkKey, change biz.LinkChange, err error) {
	succeeds(t, call, err)
	current := m.current(key)
	agree(t, call+": refused", false, change.Applied)
	agree(t, call+": previous pod", current.Pod, change.Previous)
	sameAs(t, call, current, change.Link)
}

// mismatch checks the error of a call with an expected epoch. It returns whether the call had to fail.
func (m *model) mismatch(t *rapid.T, call string, key biz.LinkKey, expected *biz.Epoch, err error) bool {
	if expected == nil || *expected == m.current(key).Epoch {
		return false
	}
	m.mismatched(t, call, key, err)
	return true
}

// another checks the error of a call for links of one pod. It returns whether the call had to fail.
func (m *model) another(t *rapid.T, call string, key biz.LinkKey, own *biz.PodID, err error) bool {
	if own == nil || *own == m.current(key).Pod {
		return false
	}
	m.mismatched(t, call, key, err)
	return true
}

// mismatched checks that the error is an *EpochMismatchError with the current link.
func (m *model) mismatched(t *rapid.T, call string, key biz.LinkKey, err error) {
	var mismatch *biz.EpochMismatchError
	agree(t, call+": a mismatch", true, errors.As(err, &mismatch))
	sameAs(t, call, m.current(key), mismatch.Current)
}

// unlink checks the result of a removal, and updates the model.
func (m *model) unlink(t *rapid.T, call string, key biz.LinkKey, keep int32, change biz.LinkChange, err error) {
	before := m.current(key)
	if !before.Exists() {
		m.refuse(t, call, key, change, err)
		return
	}
	succeeds(t, call, err)
	want := biz.LinkChange{Applied: true, Previous: before.Pod, Link: biz.NoLink(key), Removed: before.Epoch}
	if keep > 0 {
		want.Link, want.Removed = before.Link, 0
		want.Link.TTL, want.Link.Claim = biz.TTL(keep), 0
		m.links[key] = storedLink{want.Link, m.before}
	} else {
		delete(m.links, key)
	}
	agree(t, call, want, change)
}

// sameAs compares a link with one that was stored some time ago.
func sameAs(t *rapid.T, call string, want storedLink, got biz.Link) {
	if want.TTL > 0 {
		passed := biz.TTL(time.Since(want.since)/time.Second) + 1
		agree(t, call+": the time to live", true, got.TTL <= want.TTL && got.TTL >= want.TTL-passed)
		want.TTL = got.TTL
	}
	agree(t, call, want.Link, got)
}

// sameLink compares links in tests without a model; the TTL may have decreased.
func sameLink(t require.TestingT, want, got biz.Link) {
	if want.TTL > 0 {
		require.InDelta(t, float64(want.TTL), float64(got.TTL), 60)
		want.TTL, got.TTL = 0, 0
	}
	require.Equal(t, want, got)
}

// expire sets the expiry of a temporary link to the past, as if time had passed. The expired field must not be visible in
// any reply, except that the next epoch is greater.
func (m *model) expire(t *rapid.T) {
	var temporary []biz.LinkKey
	for key, link := range m.links {
		if !link.Persistent() {
			temporary = append(temporary, key)
		}
	}
	if len(temporary) == 0 {
		t.Skip("there is no temporary link")
	}
	slices.SortFunc(temporary, func(a, b biz.LinkKey) int {
		return slices.Compare([]string{a.UID, a.Service}, []string{b.UID, b.Service})
	})
	key := rapid.SampledFrom(temporary).Draw(t, "key")
	link := m.links[key]
	field := fmt.Sprintf("%d %d %d", link.Pod, link.Epoch, time.Now().Add(-time.Second).UnixMilli())
	if link.Claim != 0 {
		field += fmt.Sprintf(" %d", link.Claim)
	}
	err := m.store.client.HSet(context.Background(), m.store.keys.links(key.Namespace, key.UID), key.Service, field).Err()
	succeeds(t, "HSET", err)
	delete(m.links, key)
}

func (m *model) getLink(t *rapid.T) {
	key := m.someLink(t)
	got, err := m.repos.Links.Get(context.Background(), key)
	succeeds(t, "Links.Get", err)
	sameAs(t, "Links.Get", m.current(key), got)
}

func (m *model) getLinkIfPersist(t *rapid.T) {
	key := m.someLink(t)
	want := m.current(key)
	if !want.Persistent() {
		want.Link = biz.NoLink(key)
	}
	got, err := m.repos.Links.GetIfPersist(context.Background(), key)
	succeeds(t, "Links.GetIfPersist", err)
	sameAs(t, "Links.GetIfPersist", want, got)
}

func (m *model) batchGetLinks(t *rapid.T) {
	service, uids := someService.Draw(t, "service"), rapid.SliceOfN(someUID, 1, 4).Draw(t, "uids")
	got, err := m.repos.Links.BatchGet(context.Background(), m.namespace, service, uids)
	succeeds(t, "Links.BatchGet", err)
	agree(t, "Links.BatchGet: one link per uid", len(uids), len(got))
	for i, uid := range uids {
		succeeds(t, "Links.BatchGet", got[i].Err)
		sameAs(t, "Links.BatchGet", m.current(biz.LinkKey{Namespace: m.namespace, UID: uid, Service: service}), got[i].Link)
	}
}

// ofUID returns the links of the uid, by service.
func (m *model) ofUID(uid string) map[string]storedLink {
	links := make(map[string]storedLink)
	for key, link := range m.links {
		if key.UID == uid {
			links[key.Service] = link
		}
	}
	return links
}

func (m *model) listLinks(t *rapid.T) {
	uid := someUID.Draw(t, "uid")
	want := m.ofUID(uid)
	got, err := m.repos.Links.List(context.Background(), m.namespace, uid)
	succeeds(t, "Links.List", err)
	agree(t, "Links.List: the number of links", len(want), len(got))
	for i, service := range sorted(want) {
		sameAs(t, "Links.List", want[service], got[i])
	}
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// keyTTL checks the TTL of a key: a key with a persistent link must not have one, any other must have one, and not end
// before its last link expires.
func (m *model) keyTTL(t *rapid.T) {
	uid := someUID.Draw(t, "uid")
	links := m.ofUID(uid)
	key := m.store.keys.links(m.namespace, uid)
	left, err := m.store.client.PTTL(context.Background(), key).Result()
	succeeds(t, "PTTL", err)
	const noTTL, noKey = -1, -2 // The replies of PTTL, which the driver returns as nanoseconds.
	longest, persistent := time.Duration(0), false
	for _, link := range links {
		lasts := time.Duration(link.TTL)*time.Second - time.Since(link.since)
		longest, persistent = max(longest, lasts), persistent || link.Persistent()
	}
	switch {
	case persistent:
		agree(t, "the TTL of a key with a persistent link", time.Duration(noTTL), left)
	case len(links) > 0:
		agree(t, "the key of temporary links outlives them", true, left >= longest)
	default:
		// It may still contain expired links.
		agree(t, "a key without links does not exist, or has a TTL", true, left == noKey || left > 0)
	}
}
