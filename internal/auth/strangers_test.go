package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStrangers: beyond a bound, the tokens of an address that refused ones come from are not checked, but for those that were verified
// before. Other addresses have their own bound, and a second later the bound is as it was.
func TestStrangers(t *testing.T) {
	f := newFixture(t)
	evil, good := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	fresh := 0
	ask := func(token string, from netip.Addr) error {
		_, err := f.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + token}, From: from})
		return err
	}
	next := func() string { // A token that is valid, and was not seen before.
		fresh++
		return edKey().token(t, goodClaims().with("jti", fmt.Sprint(fresh)))
	}
	known := next()
	require.NoError(t, ask(known, evil))
	for range mostRefused {
		require.ErrorIs(t, ask(staticToken("eve"), evil), ErrUnauthenticated)
	}
	err := ask(staticToken("eve"), evil)
	require.ErrorIs(t, err, ErrTooMany)
	var refusal *RefusedError
	require.True(t, errors.As(err, &refusal))
	require.Positive(t, refusal.Wait)
	require.LessOrEqual(t, refusal.Wait, time.Second/refusedRate)
	require.ErrorIs(t, ask(next(), evil), ErrTooMany)
	require.NoError(t, ask(known, evil))
	require.NoError(t, ask(next(), good))

	f.clock.advance(refusal.Wait)
	require.NoError(t, ask(next(), evil))
	require.ErrorIs(t, ask(staticToken("eve"), evil), ErrUnauthenticated)
	require.ErrorIs(t, ask(next(), evil), ErrTooMany)
	f.clock.advance(time.Second)
	for range mostRefused {
		require.ErrorIs(t, ask(staticToken("eve"), evil), ErrUnauthenticated)
	}
	require.ErrorIs(t, ask(staticToken("eve"), evil), ErrTooMany)
}
