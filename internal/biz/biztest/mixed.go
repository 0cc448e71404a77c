package biztest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// step is a mutation of a link of the default uid. It must be applied.
type step struct {
	service string
	call    func(e *env, key biz.LinkKey) (biz.LinkChange, error)
}

// The steps link to requestedPod, except move.

func set(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), key, requestedPod, ttl, biz.SetTerms{})
	}}
}

func move(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), key, otherPod, ttl, biz.SetTerms{})
	}}
}

// claim claims the link for a process of requestedPod.
func claim(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.Set(e.Context(), key, requestedPod, ttl, biz.SetTerms{Claim: 7})
	}}
}

func trySet(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.TrySet(e.Context(), key, requestedPod, ttl, nil)
	}}
}

func setIfAbsent(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.SetIfAbsent(e.Context(), key, requestedPod, ttl, biz.SetTerms{})
	}}
}

func compute(service string, ttl biz.TTL) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.SetIfEpoch(e.Context(), key, requestedPod, ttl, biz.MoveTerms{Epoch: 0})
	}}
}

func remove(service string) step { return keep(service, 0) }

func keep(service string, seconds int32) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.Remove(e.Context(), key, seconds, biz.RemoveTerms{})
	}}
}

func keepOwn(service string, seconds int32) step {
	return step{service, func(e *env, key biz.LinkKey) (biz.LinkChange, error) {
		return e.Links.RemoveWithID(e.Context(), key, requestedPod, seconds)
	}}
}

// outcome is the link after the last step on a service, and the span of that step.
type outcome struct {
	link  biz.Link
	began span
}

// run runs the steps and returns their outcomes by service. Where the machine was so slow that a link may have ended before
// the next step on it, it starts over.
func (e *env) run(steps []step) map[string]outcome {
	e.Helper()
	for range 10 {
		if left, inTime := e.runOnce(steps); inTime {
			return left
		}
		for _, step := range steps {
			_, err := e.Links.Remove(e.Context(), e.keyOf("user-1", step.service), 0, biz.RemoveTerms{})
			require.NoError(e, err)
		}
	}
	require.Fail(e, "the machine is too slow for links of seconds")
	return nil
}

// runOnce runs the steps, and reports whether each found the link that the step before it on the service left.
func (e *env) runOnce(steps []step) (left map[string]outcome, inTime bool) {
	e.Helper()
	left = make(map[string]outcome)
	for _, step := range steps {
		var change biz.LinkChange
		var err error
		began := during(func() { change, err = step.call(e, e.keyOf("user-1", step.service)) })
		require.NoError(e, err)
		before, there := left[step.service]
		if there && before.link.TTL > 0 && !began.surelyBefore(before.began, time.Duration(before.link.TTL)*time.Second) {
			return nil, false
		}
		require.True(e, change.Applied)
		left[step.service] = outcome{change.Link, began}
	}
	return left, true
}

// testMixed tests uids with persistent and temporary links. A store may keep all links of a uid under one key: the expiry
// of temporary links must never remove a persistent one, whatever the order in which they were stored. A lost link is the
// worst possible failure.
func testMixed(t *testing.T, s suite) {
	const forever = biz.Forever
	for name, steps := range map[string][]step{
		"temporary, then persistent":                {set("a", 1), set("b", forever)},
		"persistent, then temporary":                {set("a", forever), set("b", 1)},
		"temporary made persistent":                 {set("a", 1), set("b", 1), set("a", forever)},
		"temporary made persistent by trySet":       {set("a", 1), trySet("a", forever), set("b", 1)},
		"temporary moved and made persistent":       {set("a", 1), move("a", forever), set("b", 1)},
		"persistent made temporary":                 {set("a", forever), set("b", forever), set("a", 1)},
		"persistent kept on removal":                {set("a", forever), set("b", forever), keep("a", 1)},
		"persistent kept on removal by its pod":     {set("a", forever), set("b", forever), keepOwn("a", 1)},
		"persistent removed":                        {set("a", forever), set("b", 1), remove("a")},
		"persistent removed, persistent stays":      {set("a", forever), set("b", 1), set("c", forever), remove("a")},
		"persistent removed, a long one stays":      {set("a", forever), set("b", currentTTL), set("c", 1), remove("a")},
		"temporary removed, persistent stays":       {set("a", currentTTL), set("b", forever), remove("a"), set("c", 1)},
		"long one removed":                          {set("a", currentTTL), set("b", 1), set("c", forever), remove("a")},
		"all persistent made temporary":             {set("a", forever), set("b", forever), set("a", 1), keep("b", 1)},
		"all persistent made temporary, one long":   {set("a", forever), set("b", forever), set("a", 1), keep("b", 600)},
		"short, then long":                          {set("a", 1), set("b", currentTTL)},
		"long, then short":                          {set("a", currentTTL), set("b", 1)},
		"long one shortened, the other long":        {set("a", currentTTL), set("b", currentTTL), set("a", 1)},
		"short one prolonged":                       {set("a", 1), set("b", 1), set("a", currentTTL)},
		"short one prolonged by keep":               {set("a", currentTTL), set("b", 1), keep("a", 600)},
		"persistent, then temporary by trySet":      {trySet("a", forever), trySet("b", 1)},
		"persistent, then temporary by setIfAbsent": {setIfAbsent("a", forever), setIfAbsent("b", 1)},
		"persistent, then temporary by compute":     {compute("a", forever), compute("b", 1)},
		"temporary, then persistent by trySet":      {trySet("a", 1), trySet("b", forever)},
		"temporary, then persistent by setIfAbsent": {setIfAbsent("a", 1), setIfAbsent("b", forever)},
		"temporary, then persistent by compute":     {compute("a", 1), compute("b", forever)},
		"removed and persistent again":              {set("a", forever), remove("a"), set("b", 1), set("a", forever)},
		"temporary removed and persistent again":    {set("a", 1), set("b", currentTTL), remove("b"), set("b", forever)},
		"temporary claimed":                         {set("a", forever), claim("b", 1)},
		"persistent claimed":                        {set("a", 1), claim("b", forever)},
		"temporary claimed and made persistent":     {claim("a", 1), set("a", forever), set("b", 1)},
		"persistent claimed and made temporary":     {claim("a", forever), claim("b", forever), set("a", 1)},
		"persistent claimed and kept on removal":    {claim("a", forever), claim("b", forever), keep("a", 1)},
		"persistent again, unchanged":               {set("a", forever), set("b", 1), set("a", forever)},
		"temporary ones around a persistent one":    {set("a", 1), set("b", 1), set("c", forever), set("d", 1)},
	} {
		s.test(t, name, func(e *env) {
			var left map[string]outcome
			whole := during(func() { left = e.run(steps) })
			// A store may sweep expired links later, so check the other links for some time after that.
			for now := whole; !now.surelyAfter(whole, 3500*time.Millisecond); {
				now = during(func() { e.requireLifetimes(left) })
				time.Sleep(300 * time.Millisecond)
			}
			// A later mutation must not sweep too much, either.
			left["z"] = e.run([]step{set("z", currentTTL)})["z"]
			e.requireLifetimes(left)
			delete(left, "z")
			e.run([]step{remove("z")})
			e.requireLifetimes(left)
			for _, one := range left {
				if one.link.Persistent() {
					e.requireLink(one.link)
				}
			}
		})
	}
}

// requireLifetimes checks that each link exists until its expiry and not longer.
func (e *env) requireLifetimes(left map[string]outcome) {
	e.Helper()
	var found []biz.Link
	now := during(func() {
		var err error
		found, err = e.Links.List(e.Context(), e.namespace, "user-1")
		require.NoError(e, err)
	})
	byService := make(map[string]biz.Link)
	for _, link := range found {
		byService[link.Key.Service] = link
	}
	for _, service := range slices.Sorted(maps.Keys(left)) {
		want := left[service]
		got, there := byService[service]
		lifetime := time.Duration(want.link.TTL) * time.Second
		switch {
		case want.link.TTL == biz.Gone || want.link.TTL > 0 && now.surelyAfter(want.began, lifetime):
			require.False(e, there, "%s has ended", service)
			e.requireNoLink(want.link.Key)
		case want.link.TTL == biz.Forever || now.surelyBefore(want.began, lifetime):
			require.True(e, there, "%s is lost", service)
			require.Equal(e, want.link.Epoch, got.Epoch)
			require.Equal(e, want.link.Pod, got.Pod)
			require.Equal(e, want.link.Claim, got.Claim)
		}
	}
	require.Subset(e, slices.Collect(maps.Keys(left)), slices.Collect(maps.Keys(byService)))
}
