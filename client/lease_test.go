package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLease(t *testing.T) {
	const ttl = 15 * time.Second
	synctest.Test(t, func(t *testing.T) {
		l := newLease(ttl)
		begin := time.Now()
		holds := func() bool { state, _ := l.state(); return state.holds() }
		require.False(t, holds(), "no report was stored yet")

		require.False(t, l.renew(renewal{begun: begin, generation: 7, storeID: "a"}))
		require.True(t, holds())
		time.Sleep(ttl)
		require.False(t, holds(), "podlink may move users from the moment on")

		time.Sleep(time.Millisecond)
		require.True(t, l.renew(renewal{begun: time.Now(), generation: 7, storeID: "b"}))
		state, _ := l.state()
		require.Equal(t, 1, state.lapses)
		require.Equal(t, "b", state.storeID)

		require.False(t, l.renew(renewal{begun: begin, generation: 7, storeID: "a"}), "the answer to an older report")
		state, _ = l.state()
		require.True(t, state.holds(), "an older answer takes nothing back")
		require.Equal(t, "b", state.storeID)

		l.supersede()
		require.False(t, holds())
		l.renew(renewal{begun: time.Now(), generation: 7, storeID: "c"})
		require.False(t, holds(), "for good")
	})
}

func TestUnconfirmedReportsRenewTheLease(t *testing.T) {
	const ttl = 15 * time.Second
	for name, row := range map[string]struct {
		confirmed bool          // there was a confirmed report at first
		after     time.Duration // how long reports have been unconfirmed
		want      time.Duration // how long the lease lasts from then on
	}{
		"none was ever confirmed":   {after: time.Hour, want: ttl},
		"within a TTL":              {confirmed: true, after: ttl, want: ttl},
		"at most one TTL beyond it": {confirmed: true, after: 25 * time.Second, want: 5 * time.Second},
		"then no more":              {confirmed: true, after: time.Minute, want: 2*ttl - time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLease(ttl)
				if row.confirmed {
					l.renew(renewal{begun: time.Now(), generation: 1})
				}
				time.Sleep(row.after)
				l.renew(renewal{begun: time.Now(), generation: 1, unconfirmed: true})
				state, _ := l.state()
				require.Equal(t, row.want, time.Until(state.until))
			})
		})
	}
}

func TestWaitForTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLease(time.Second)
		hasGeneration := func(s leaseState) bool { return s.generation != 0 }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			time.Sleep(time.Second)
			l.renew(renewal{begun: time.Now()})
			time.Sleep(time.Second)
			l.renew(renewal{begun: time.Now(), generation: 3})
		}()
		begin := time.Now()
		state, err := l.wait(ctx, hasGeneration)
		require.NoError(t, err)
		require.EqualValues(t, 3, state.generation)
		require.Equal(t, 2*time.Second, time.Since(begin))

		_, err = l.wait(ctx, func(leaseState) bool { return false })
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
