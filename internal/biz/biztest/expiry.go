package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

func testExpiry(t *testing.T, s suite) {
	// Every sequence of mutations that results in a link of n seconds.
	const n = 3
	for name, steps := range map[string][]step{
		"set":                           {set(service, n)},
		"set a second time":             {set(service, n), set(service, n)},
		"set over a longer one":         {set(service, currentTTL), set(service, n)},
		"set over a shorter one":        {set(service, 1), set(service, n)},
		"set over a persistent one":     {set(service, biz.Forever), set(service, n)},
		"move of a persistent one":      {set(service, biz.Forever), move(service, n)},
		"move of a temporary one":       {set(service, currentTTL), move(service, n)},
		"claim":                         {claim(service, n)},
		"claim of a persistent one":     {set(service, biz.Forever), claim(service, n)},
		"claim, then set":               {claim(service, currentTTL), set(service, n)},
		"claim, then keep":              {claim(service, biz.Forever), keep(service, n)},
		"trySet":                        {trySet(service, n)},
		"trySet over a persistent one":  {set(service, biz.Forever), trySet(service, n)},
		"setIfAbsent":                   {setIfAbsent(service, n)},
		"compute":                       {compute(service, n)},
		"keep of a persistent one":      {set(service, biz.Forever), keep(service, n)},
		"keep of a longer one":          {set(service, currentTTL), keep(service, n)},
		"keep of a shorter one":         {set(service, n-1), keep(service, n)},
		"keep by its pod":               {set(service, biz.Forever), keepOwn(service, n)},
		"keep by its pod, again":        {set(service, biz.Forever), keepOwn(service, n-1), keepOwn(service, n)},
		"next to a persistent one":      {set("chat", biz.Forever), set(service, n)},
		"next to a longer one":          {set("chat", currentTTL), set(service, n)},
		"before a longer one":           {set(service, n), set("chat", currentTTL)},
		"next to one that ends earlier": {set("chat", 1), set(service, n)},
		"after a persistent one":        {set("chat", biz.Forever), set(service, n), remove("chat")},
	} {
		s.test(t, "exact/"+name, func(e *env) {
			e.requireExactExpiry(e.run(steps)[service].began, n*time.Second)
		})
	}

	// Every operation must treat an expired link like no link.
	for name, call := range map[string]func(e *env, expired biz.Link){
		"Get, GetIfPersist, BatchGet, List": func(e *env, _ biz.Link) { e.requireNoLink(e.key()) },
		"Set of the same pod": func(e *env, expired biz.Link) {
			e.requireCreated(expired, biz.Forever)(e.Links.Set(e.Context(), e.key(), expired.Pod, biz.Forever, biz.SetTerms{}))
		},
		"Set of another pod": func(e *env, expired biz.Link) {
			e.requireCreated(expired, requestedTTL)(e.Links.Set(e.Context(), e.key(), requestedPod, requestedTTL, biz.SetTerms{}))
		},
		"Set that claims": func(e *env, expired biz.Link) {
			e.requireCreated(expired, biz.Forever)(e.Links.Set(e.Context(), e.key(), expired.Pod, biz.Forever, biz.SetTerms{
				Claim: 1, Expected: new(biz.Epoch),
			}))
		},
		"TrySet": func(e *env, expired biz.Link) {
			e.requireCreated(expired, requestedTTL)(e.Links.TrySet(e.Context(), e.key(), expired.Pod, requestedTTL, nil))
		},
		"SetIfAbsent": func(e *env, expired biz.Link) {
			e.requireCreated(expired, biz.Forever)(e.Links.SetIfAbsent(e.Context(), e.key(), expired.Pod, biz.Forever, biz.SetTerms{}))
		},
		"Compute": func(e *env, expired biz.Link) {
			e.requireCreated(expired, requestedTTL)(e.Links.SetIfEpoch(e.Context(), e.key(), expired.Pod, requestedTTL, biz.MoveTerms{Epoch: 0}))
		},
		"Compute that has read it": func(e *env, expired biz.Link) {
			move := biz.MoveTerms{Epoch: expired.Epoch}
			e.requireCreated(expired, requestedTTL)(e.Links.SetIfEpoch(e.Context(), e.key(), expired.Pod, requestedTTL, move))
		},
		"Remove": func(e *env, _ biz.Link) {
			e.requireNotRemoved(e.Links.Remove(e.Context(), e.key(), 0, biz.RemoveTerms{}))
		},
		"Remove and keep": func(e *env, _ biz.Link) {
			e.requireNotRemoved(e.Links.Remove(e.Context(), e.key(), keepSeconds, biz.RemoveTerms{}))
		},
		"RemoveWithID": func(e *env, expired biz.Link) {
			e.requireNotRemoved(e.Links.RemoveWithID(e.Context(), e.key(), expired.Pod, 0))
		},
		"RemoveWithID and keep": func(e *env, expired biz.Link) {
			e.requireNotRemoved(e.Links.RemoveWithID(e.Context(), e.key(), expired.Pod, keepSeconds))
		},
	} {
		for variant, neighbour := range map[string]biz.TTL{"alone": biz.Gone, "next to a persistent link": biz.Forever} {
			s.test(t, "absent for/"+name+"/"+variant, func(e *env) {
				chat := biz.NoLink(e.keyOf("user-1", "chat"))
				if neighbour != biz.Gone {
					chat = e.set(chat.Key, otherPod, neighbour)
				}
				var expired biz.Link
				began := during(func() { expired = e.claim(e.key(), otherPod, 1, 7) })
				began.sleepPast(time.Second)
				call(e, expired)
				e.requireLink(chat)
			})
		}
	}

	s.test(t, "the longest TTL", func(e *env) {
		const longest biz.TTL = 1<<31 - 1
		e.requireLink(e.set(e.key(), requestedPod, longest))
		change, err := e.Links.Remove(e.Context(), e.key(), int32(longest), biz.RemoveTerms{})
		require.NoError(e, err)
		e.requireTTL(longest, change.Link.TTL)
		e.requireLink(change.Link)
	})
}

func (e *env) requireApplied(change biz.LinkChange, err error) {
	e.Helper()
	require.NoError(e, err)
	require.True(e, change.Applied)
}

// requireCreated checks the result of a mutation that creates a link in place of an expired one.
func (e *env) requireCreated(expired biz.Link, ttl biz.TTL) func(biz.LinkChange, error) {
	return func(change biz.LinkChange, err error) {
		e.Helper()
		e.requireApplied(change, err)
		require.Equal(e, biz.NoPod, change.Previous)
		require.Greater(e, change.Link.Epoch, expired.Epoch)
		e.requireTTL(ttl, change.Link.TTL)
		e.requireLink(change.Link)
	}
}

// requireNotRemoved checks the result of a removal that found no link.
func (e *env) requireNotRemoved(change biz.LinkChange, err error) {
	e.Helper()
	require.NoError(e, err)
	require.Equal(e, biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(e.key())}, change)
	e.requireNoLink(e.key())
}

// requireExactExpiry polls the link of key, which was stored in began, until well after its expiry: it must exist until
// lifetime has passed, with its remaining seconds rounded up, and never again after that.
func (e *env) requireExactExpiry(began span, lifetime time.Duration) {
	e.Helper()
	first, err := e.Links.Get(e.Context(), e.key())
	require.NoError(e, err)
	absent := false
	for {
		var link biz.Link
		now := during(func() { link, err = e.Links.Get(e.Context(), e.key()) })
		require.NoError(e, err)
		if !link.Exists() {
			absent = true
			require.False(e, now.surelyBefore(began, lifetime), "it expired %s early", lifetime-now.end.Sub(began.start))
		} else {
			require.False(e, absent, "it came back")
			require.False(e, now.surelyAfter(began, lifetime), "it expired %s late", now.start.Sub(began.end)-lifetime)
			require.Equal(e, first.Pod, link.Pod)
			require.Equal(e, first.Epoch, link.Epoch)
			least, most := now.secondsLeft(began, lifetime)
			require.GreaterOrEqual(e, link.TTL, least, "seconds left, rounded up")
			require.LessOrEqual(e, link.TTL, most, "seconds left, rounded up")
		}
		// A late sweep of the store must not bring it back, so poll for a while longer.
		if now.surelyAfter(began, lifetime+time.Second/2) {
			return
		}
		if left := began.end.Add(lifetime).Sub(now.end); left > 200*time.Millisecond {
			time.Sleep(100 * time.Millisecond)
		} else {
			time.Sleep(5 * time.Millisecond)
		}
	}
}
