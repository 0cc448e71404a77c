package biztest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

func testLinks(t *testing.T, s suite) {
	// A mutation must not change another link: of another service, uid or namespace.
	for name, mutation := range map[string]step{
		"Set":                      set(service, requestedTTL),
		"Set to another pod":       move(service, biz.Forever),
		"TrySet":                   trySet(service, requestedTTL),
		"Remove":                   remove(service),
		"Remove and keep":          keep(service, keepSeconds),
		"RemoveWithID":             keepOwn(service, 0),
		"RemoveWithID and keep":    keepOwn(service, keepSeconds),
		"SetIfAbsent, persistent":  setIfAbsent("new", biz.Forever),
		"SetIfAbsent, temporary":   setIfAbsent("new", requestedTTL),
		"Compute, persistent link": compute("new", biz.Forever),
		"Compute, temporary link":  compute("new", requestedTTL),
	} {
		for kind, ttl := range map[string]biz.TTL{"persistent": biz.Forever, "temporary": currentTTL} {
			s.test(t, "changes no other link/"+name+"/"+kind, func(e *env) {
				e.set(e.key(), requestedPod, ttl)
				var others []biz.Link
				for i, key := range similarKeys(e.key()) {
					for j, ttl := range []biz.TTL{biz.Forever, currentTTL} {
						key.Service += []string{"", "-temporary"}[j]
						others = append(others, e.set(key, biz.PodID(i), ttl))
					}
				}
				e.run([]step{mutation})
				for _, link := range others {
					got, err := e.Links.Get(e.Context(), link.Key)
					require.NoError(e, err)
					e.requireSameLink(link, got)
				}
			})
		}
	}

	s.test(t, "RemoveWithID of another pod changes nothing", func(e *env) {
		link := e.set(e.key(), 12, biz.Forever)
		for _, pod := range []biz.PodID{1, 2, 120, 0} {
			change, err := e.Links.RemoveWithID(e.Context(), e.key(), pod, 0)
			require.NoError(e, err)
			require.Equal(e, biz.LinkChange{Previous: 12, Link: link}, change)
		}
		e.requireLink(link)
	})

	for name, uid := range map[string]string{
		"colon":          "user:42",
		"slash":          "a/b",
		"hash tag":       "{x}",
		"half a tag":     "}{",
		"emoji":          "🙂👩‍👩‍👧",
		"spaces":         " a  b ",
		"one space":      " ",
		"a number":       "0042",
		"like an option": "-1",
		"pattern":        "*[a-z]?\\",
		"percent":        "%2F%s%d",
		"quotes":         `"'` + "`",
		"a key":          "podlink:link:ns:uid",
		"other script":   "пользователь",
		"longest":        strings.Repeat("u", 256),
		"longest emoji":  strings.Repeat("🙂", 64),
		"not normalised": "e\u0301",
	} {
		s.test(t, "uid/"+name, func(e *env) {
			key := e.keyOf(uid, service)
			e.requireNoLink(key)
			e.requireLink(e.set(key, requestedPod, biz.Forever))
			moved := e.set(key, otherPod, currentTTL)
			e.requireLink(moved)
			change, err := e.Links.Remove(e.Context(), key, 0, biz.RemoveTerms{})
			require.NoError(e, err)
			require.Equal(e, biz.LinkChange{Applied: true, Previous: otherPod, Link: biz.NoLink(key), Removed: moved.Epoch}, change)
			e.requireNoLink(key)
		})
	}

	s.test(t, "uids that look alike are different", func(e *env) {
		uids := []string{
			"user", "User", "user ", " user", "user:", ":user", "user:1", "user:1:game", "{user}", "\u00e9", "e\u0301",
		}
		links := make(map[string]biz.Link)
		for i, uid := range uids {
			links[uid] = e.set(e.keyOf(uid, service), biz.PodID(i), biz.Forever)
		}
		for _, link := range links {
			e.requireLink(link)
		}
	})

	for name, pod := range map[string]biz.PodID{"lowest": 0, "highest": 1<<31 - 1} {
		s.test(t, "pod/"+name, func(e *env) {
			e.requireLink(e.set(e.key(), pod, biz.Forever))
			e.requireLink(e.set(e.key(), pod, currentTTL))
			change, err := e.Links.RemoveWithID(e.Context(), e.key(), pod, 0)
			e.requireApplied(change, err)
			require.Equal(e, pod, change.Previous)
		})
	}

	s.test(t, "BatchGet/in order, with all kinds of links", func(e *env) {
		var uids []string
		var want []biz.Link
		for i := range 40 {
			key := e.keyOf(fmt.Sprintf("user-%d", (i*7)%40), service)
			uids = append(uids, key.UID)
			switch i % 5 {
			case 0:
				want = append(want, e.set(key, biz.PodID(i), biz.Forever))
			case 1:
				want = append(want, e.set(key, biz.PodID(i), currentTTL))
			case 2:
				want = append(want, e.claim(key, biz.PodID(i), biz.Forever, 7))
			case 3:
				want = append(want, e.claim(key, biz.PodID(i), currentTTL, 7))
			default:
				e.set(e.keyOf(key.UID, "chat"), 1, biz.Forever)
				want = append(want, biz.NoLink(key))
			}
		}
		got, err := e.Links.BatchGet(e.Context(), e.namespace, service, uids)
		require.NoError(e, err)
		require.Len(e, got, len(want))
		for i := range want {
			require.NoError(e, got[i].Err)
			e.requireSameLink(want[i], got[i].Link)
		}
	})
	s.test(t, "BatchGet/none is linked", func(e *env) {
		got, err := e.Links.BatchGet(e.Context(), e.namespace, service, []string{"b", "a"})
		require.NoError(e, err)
		require.Equal(e, found(biz.NoLink(e.keyOf("b", service)), biz.NoLink(e.keyOf("a", service))), got)
	})
	s.test(t, "BatchGet/the use-case reads each uid once", func(e *env) {
		link := e.set(e.keyOf("a", service), requestedPod, biz.Forever)
		got, err := e.usecaseOf(e.Repos).BatchGet(e.Context(), e.namespace, service, []string{"b", "a", "b", "a"})
		require.NoError(e, err)
		require.Equal(e, found(biz.NoLink(e.keyOf("b", service)), link), got)
	})
	s.test(t, "BatchGet/1000 uids", func(e *env) {
		uids := make([]string, 1000)
		for i := range uids {
			uids[i] = fmt.Sprintf("user-%d", i)
		}
		last := e.set(e.keyOf(uids[999], service), requestedPod, currentTTL)
		got, err := e.Links.BatchGet(e.Context(), e.namespace, service, uids)
		require.NoError(e, err)
		require.Len(e, got, 1000)
		e.requireSameLink(last, got[999].Link)
		require.Equal(e, found(biz.NoLink(e.keyOf(uids[0], service))), got[:1])
	})

	s.test(t, "List/by service, persistent and temporary", func(e *env) {
		services := []string{"chat", "a", "game-2", "game", "Game", "z.9", "game.2", "0", "game_2", "game-10"}
		for i, service := range services {
			e.set(e.keyOf("user-1", service), biz.PodID(i), []biz.TTL{biz.Forever, currentTTL}[i%2])
		}
		got, err := e.Links.List(e.Context(), e.namespace, "user-1")
		require.NoError(e, err)
		require.Len(e, got, len(services))
		require.True(e, slices.IsSortedFunc(got, func(a, b biz.Link) int {
			return strings.Compare(a.Key.Service, b.Key.Service)
		}))
		for _, link := range got {
			i := slices.Index(services, link.Key.Service)
			require.NotEqual(e, -1, i)
			require.EqualValues(e, i, link.Pod)
			e.requireLink(link)
		}
	})
	s.test(t, "List/no link", func(e *env) {
		got, err := e.Links.List(e.Context(), e.namespace, "user-1")
		require.NoError(e, err)
		require.Empty(e, got)
		e.run([]step{set(service, biz.Forever), remove(service)})
		got, err = e.Links.List(e.Context(), e.namespace, "user-1")
		require.NoError(e, err)
		require.Empty(e, got)
	})
}

// found returns the results of a batch that has no errors.
func found(links ...biz.Link) []biz.LinkResult {
	results := make([]biz.LinkResult, len(links))
	for i, link := range links {
		results[i].Link = link
	}
	return results
}

// similarKeys returns keys that differ from key in one field.
func similarKeys(key biz.LinkKey) []biz.LinkKey {
	with := func(change func(*biz.LinkKey)) biz.LinkKey {
		other := key
		change(&other)
		return other
	}
	return []biz.LinkKey{
		with(func(k *biz.LinkKey) { k.Service = "chat" }),
		with(func(k *biz.LinkKey) { k.Service += "2" }),
		with(func(k *biz.LinkKey) { k.Service = k.Service[1:] }),
		with(func(k *biz.LinkKey) { k.UID += "2" }),
		with(func(k *biz.LinkKey) { k.UID += ":" + k.Service }),
		with(func(k *biz.LinkKey) { k.UID = k.UID[1:] }),
		with(func(k *biz.LinkKey) { k.Namespace += "2" }),
		with(func(k *biz.LinkKey) { k.Namespace += ".x" }),
		with(func(k *biz.LinkKey) { k.Namespace = k.Namespace[:len(k.Namespace)-1] }),
	}
}
