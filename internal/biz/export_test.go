package biz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// withExports runs the test in a synctest bubble, with a store of 1,000 links of game:room, two of game:hall and one of play:room.
func withExports(t *testing.T, test func(t *testing.T, store *fleetStore, exports *Exports)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newFleetStore()
		for i := range 1000 {
			store.bind(ofRoom(strconv.Itoa(i)), PodID(i%7), Forever)
		}
		store.bind(LinkKey{"game", "1", "hall"}, 0, 60)
		store.bind(LinkKey{"game", "2", "hall"}, 0, Forever)
		store.bind(LinkKey{"play", "1", "room"}, 0, Forever)
		test(t, store, NewExports(store, 1000))
	})
}

// exported is what an export has sent.
type exported struct {
	messages []ExportMessage
	links    map[LinkKey]Link
	at       []time.Time // of the messages
	// then is called after each message; its error ends the export.
	then func(m ExportMessage) error
}

func (e *exported) send(m ExportMessage) error {
	if e.links == nil {
		e.links = make(map[LinkKey]Link)
	}
	e.messages, e.at = append(e.messages, m), append(e.at, time.Now())
	for _, link := range m.Links {
		e.links[link.Key] = link
	}
	if e.then != nil {
		return e.then(m)
	}
	return nil
}

func (e *exported) last() ExportMessage { return e.messages[len(e.messages)-1] }

// TestExport: it has every link of the namespace or of the service, at its pace, and says that it is done.
func TestExport(t *testing.T) {
	for name, row := range map[string]struct {
		request ExportRequest
		links   int
	}{
		"a namespace":               {ExportRequest{Namespace: "game"}, 1002},
		"a service":                 {ExportRequest{Namespace: "game", Service: "hall"}, 2},
		"another namespace":         {ExportRequest{Namespace: "play"}, 1},
		"a namespace without links": {ExportRequest{Namespace: "none"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			withExports(t, func(t *testing.T, store *fleetStore, exports *Exports) {
				var got exported
				began := time.Now()
				require.NoError(t, exports.Export(t.Context(), row.request, got.send))
				require.Len(t, got.links, row.links)
				for key, link := range got.links {
					require.Equal(t, row.request.Namespace, key.Namespace)
					require.Equal(t, store.get(key).Epoch, link.Epoch)
				}
				for i, m := range got.messages {
					require.Equal(t, i == len(got.messages)-1, m.Done)
					require.Equal(t, m.Done, m.Token == "")
					require.Empty(t, m.Restart)
				}
				require.WithinRange(t, time.Now(), began.Add(900*time.Millisecond), began.Add(1100*time.Millisecond), "1,003 keys at 1,000 a second")
				require.Equal(t, 1003, store.scanned)
			})
		})
	}
}

// TestExportIsNotSilent: while there are no links, messages show that it goes on.
func TestExportIsNotSilent(t *testing.T) {
	withExports(t, func(t *testing.T, store *fleetStore, _ *Exports) {
		var got exported
		require.NoError(t, NewExports(store, 100).Export(t.Context(), ExportRequest{Namespace: "none"}, got.send))
		require.Len(t, got.messages, 10)
		for i := 1; i < len(got.at); i++ {
			require.LessOrEqual(t, got.at[i].Sub(got.at[i-1]), exportSilence+100*time.Millisecond)
		}
	})
}

// TestExportsShareThePace: several at once take as long as one after the other.
func TestExportsShareThePace(t *testing.T) {
	withExports(t, func(t *testing.T, _ *fleetStore, exports *Exports) {
		began, results := time.Now(), make(chan error)
		for range 3 {
			go func() { results <- exports.Export(t.Context(), ExportRequest{Namespace: "game"}, new(exported).send) }()
		}
		for range 3 {
			require.NoError(t, <-results)
		}
		require.Greater(t, time.Since(began), 2800*time.Millisecond)
	})
}

// TestExportOfManyServices: a part may have more links than a message. Whoever resumes in the middle of it misses none.
func TestExportOfManyServices(t *testing.T) {
	withExports(t, func(t *testing.T, _ *fleetStore, exports *Exports) {
		request, want := ExportRequest{Namespace: "game"}, make(map[LinkKey]bool)
		x := &export{Exports: exports, request: request, at: "here"}
		links := make([]Link, 2*maxExported+1)
		for i := range links {
			links[i].Key = LinkKey{"game", "1", strconv.Itoa(i)}
			want[links[i].Key] = true
		}
		var got exported
		x.send = got.send
		require.NoError(t, x.tellAll(links, "there"))
		require.Len(t, got.links, len(want))
		require.Len(t, got.messages, 3)
		for i, m := range got.messages {
			require.LessOrEqual(t, len(m.Links), maxExported)
			require.Equal(t, x.token([]string{"here", "here", "there"}[i]), m.Token)
		}
	})
}

// TestExportBeginsAgain when the store has changed so that links may have been missed, and says so; with growing pauses.
func TestExportBeginsAgain(t *testing.T) {
	withExports(t, func(t *testing.T, store *fleetStore, exports *Exports) {
		var got exported
		changes := 0
		got.then = func(m ExportMessage) error {
			if len(m.Links) > 0 && changes < 3 {
				changes++
				store.mu.Lock()
				store.moves++
				store.mu.Unlock()
			}
			return nil
		}
		require.NoError(t, exports.Export(t.Context(), ExportRequest{Namespace: "game"}, got.send))
		require.Len(t, got.links, 1002)
		restarts := 0
		for i, m := range got.messages {
			if m.Restart != "" {
				require.Equal(t, ExportMessage{Restart: RestartStoreChanged}, m)
				require.Equal(t, firstExportPause<<restarts, got.at[i+1].Sub(got.at[i]))
				restarts++
			}
		}
		require.Equal(t, 3, restarts)
		require.True(t, got.last().Done)
	})
}

// TestExportWithFailures: one that has begun waits for the store, one that has not fails at once.
func TestExportWithFailures(t *testing.T) {
	request := ExportRequest{Namespace: "game"}
	withExports(t, func(t *testing.T, store *fleetStore, exports *Exports) {
		store.fail(ErrStoreUnavailable)
		began, got := time.Now(), new(exported)
		require.ErrorIs(t, exports.Export(t.Context(), request, got.send), ErrStoreUnavailable)
		require.Equal(t, began, time.Now())
		require.Empty(t, got.messages)
		store.fail(nil)

		got.then = func(ExportMessage) error {
			if len(got.messages) == 3 {
				store.fail(ErrDeadlineExceeded)
				time.AfterFunc(10*time.Second, func() { store.fail(nil) })
			}
			return nil
		}
		require.NoError(t, exports.Export(t.Context(), request, got.send))
		require.Len(t, got.links, 1002)
		require.True(t, got.last().Done)

		got = new(exported)
		got.then = func(ExportMessage) error {
			store.fail(ErrStoreUnavailable)
			return nil
		}
		require.ErrorIs(t, exports.Export(t.Context(), request, got.send), ErrStoreUnavailable)
		require.Len(t, got.messages, 1)
		store.fail(nil)
		request.Resume, got.then = got.last().Token, nil
		require.NoError(t, exports.Export(t.Context(), request, got.send))
		require.Len(t, got.links, 1002)
	})
}

// TestExportEnds when its caller leaves, wherever it is, or does not take a message.
func TestExportEnds(t *testing.T) {
	request := ExportRequest{Namespace: "game"}
	for name, given := range map[string]func(store *fleetStore){
		"on its way":             func(*fleetStore) {},
		"without an answer":      func(store *fleetStore) { store.fail(ErrDeadlineExceeded) },
		"before it begins again": func(store *fleetStore) { store.moves++ },
	} {
		t.Run(name, func(t *testing.T) {
			withExports(t, func(t *testing.T, store *fleetStore, exports *Exports) {
				ctx, leave := context.WithCancelCause(t.Context())
				left := errors.New("left")
				time.AfterFunc(900*time.Millisecond, func() { leave(left) })
				got := new(exported)
				got.then = func(ExportMessage) error {
					if len(got.messages) == 5 {
						given(store)
					}
					return nil
				}
				err := exports.Export(ctx, request, got.send)
				require.ErrorIs(t, err, ErrCanceled)
				require.ErrorIs(t, err, left)
				require.False(t, got.last().Done)
			})
		})
	}
	withExports(t, func(t *testing.T, _ *fleetStore, exports *Exports) {
		refusal := errors.New("not taken")
		got := exported{then: func(ExportMessage) error { return refusal }}
		require.Equal(t, refusal, exports.Export(t.Context(), request, got.send))
		require.Len(t, got.messages, 1)
		require.Zero(t, exports.open.Load())
	})
}

// TestExportLimit: so many at once, and others when they have ended.
func TestExportLimit(t *testing.T) {
	withExports(t, func(t *testing.T, _ *fleetStore, exports *Exports) {
		ctx, leave := context.WithCancel(t.Context())
		for range maxExports {
			go func() { _ = exports.Export(ctx, ExportRequest{Namespace: "game"}, new(exported).send) }()
		}
		synctest.Wait()
		var limit *LimitError
		require.ErrorAs(t, exports.Export(t.Context(), ExportRequest{Namespace: "game"}, new(exported).send), &limit)
		require.Contains(t, limit.Limit, "16 exports")
		leave()
		synctest.Wait()
		require.NoError(t, exports.Export(t.Context(), ExportRequest{Namespace: "game"}, new(exported).send))
	})
}

// TestExportTokens of others than an export of the same links are refused.
func TestExportTokens(t *testing.T) {
	withExports(t, func(t *testing.T, _ *fleetStore, exports *Exports) {
		left := errors.New("left")
		got := exported{then: func(ExportMessage) error { return left }}
		require.Equal(t, left, exports.Export(t.Context(), ExportRequest{Namespace: "game"}, got.send))
		good := got.last().Token
		require.Regexp(t, `^[A-Za-z0-9._-]+$`, good)
		sum, at, _ := strings.Cut(good, ".")
		for name, request := range map[string]ExportRequest{
			"of another namespace": {Namespace: "play", Resume: good},
			"of all services":      {Namespace: "game", Service: "room", Resume: good},
			"of the repo":          {Namespace: "game", Resume: at},
			"without its end":      {Namespace: "game", Resume: sum + "."},
			"of a list":            {Namespace: "game", Resume: podWalk{at: at}.token(room, 1)},
			"too long":             {Namespace: "game", Resume: good + strings.Repeat("0", maxPageTokenLen)},
		} {
			var invalid *InvalidArgumentError
			require.ErrorAs(t, exports.Export(t.Context(), request, got.send), &invalid, name)
			require.Equal(t, "resume_token", invalid.Field, name)
		}
		require.Len(t, got.messages, 1)
	})
}

// TestExportDuringChanges: a link that stands during the whole export is in it, whatever else happens, and however often the export ends
// and is resumed at another process.
func TestExportDuringChanges(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			as := func(token string, _ int) string { return token }
			require.NoError(t, exportDuringChanges(t, rand.New(rand.NewPCG(seed, 0)), as), "seed %d", seed)
		})
	}
}

// TestKnownBadExportIsCaught: one that goes on where it was although the store has changed misses links.
func TestKnownBadExportIsCaught(t *testing.T) {
	caught := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			forged := func(token string, moves int) string {
				return strings.Replace(token, ".0.", "."+strconv.Itoa(moves)+".", 1)
			}
			if exportDuringChanges(t, rand.New(rand.NewPCG(seed, 0)), forged) != nil {
				caught++
			}
		})
	}
	require.Greater(t, caught, 5)
}

// exportDuringChanges exports links while others change, and once all keys have moved. It resumes after each end with what resume makes of
// the token.
func exportDuringChanges(t *testing.T, r *rand.Rand, resume func(token string, moves int) string) error {
	t.Helper()
	store := newFleetStore()
	for i := range 300 {
		store.bind(ofRoom(strconv.Itoa(i)), 1, Forever)
	}
	got, left := new(exported), errors.New("left")
	got.then = func(ExportMessage) error {
		for range r.IntN(5) {
			uid := strconv.Itoa(150 + r.IntN(300))
			if r.IntN(2) == 0 {
				store.unbind(ofRoom(uid))
			} else {
				store.bind(ofRoom(uid), PodID(r.IntN(3)), Forever)
			}
		}
		if len(got.messages) == 10 {
			store.mu.Lock()
			store.moves++
			store.mu.Unlock()
			return left
		}
		if r.IntN(4) == 0 {
			return left
		}
		return nil
	}
	request, err := ExportRequest{Namespace: "game"}, left
	for errors.Is(err, left) {
		err = NewExports(store, 200).Export(t.Context(), request, got.send)
		request.Resume = resume(got.last().Token, store.moves)
	}
	if err != nil {
		return err
	}
	for i := range 150 {
		if _, found := got.links[ofRoom(strconv.Itoa(i))]; !found {
			return fmt.Errorf("a link that stood was not exported: %d", i)
		}
	}
	return nil
}
