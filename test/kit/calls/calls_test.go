package calls

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRepeat: every call is made in each interval, and the errors of those that fail are kept.
func TestRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		stop := Repeat(time.Second, time.Minute,
			func(context.Context) error { return nil },
			func(ctx context.Context) error {
				until, bounded := ctx.Deadline()
				require.True(t, bounded)
				require.Equal(t, time.Minute, time.Until(until))
				return broken
			})
		time.Sleep(9500 * time.Millisecond)
		count, failed := stop()
		require.Equal(t, 20, count)
		require.Len(t, failed, 10)
		require.ErrorIs(t, failed[0], broken)
	})
}

// TestGet: an answer that is not 200 is an error with its body.
func TestGet(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer a" {
			http.Error(w, "who are you", http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	require.NoError(t, Get(t.Context(), http.DefaultTransport, server.URL, "Bearer a"))
	require.ErrorContains(t, Get(t.Context(), http.DefaultTransport, server.URL, ""), "401 who are you")
}
