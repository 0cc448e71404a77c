package app

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/auth"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/server"
	"podlink/internal/telemetry"
)

// TestCallerName: a change is noted with the name of who has asked for it, if that is known.
func TestCallerName(t *testing.T) {
	require.Empty(t, callerName(t.Context()), "auth.mode off")
	require.Equal(t, "token:ops", callerName(&auth.Call{Context: t.Context(), Identity: auth.Identity{Name: "token:ops"}}))
}

// TestWatchesEndWithTheDrain: they are closed when the drain begins, and not by a stop without one, where their cleanup does it.
func TestWatchesEndWithTheDrain(t *testing.T) {
	for name, row := range map[string]struct {
		drains bool
		want   int
	}{"a drain": {true, 1}, "a stop without a drain": {false, 0}} {
		t.Run(name, func(t *testing.T) {
			config, closed := conf.Default().GetServer(), 0
			config.GetStop().Drain = nil
			drain := server.NewDrain(config)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if row.drains {
				require.NoError(t, drain.Run(ctx))
			} else {
				cancel()
			}
			require.NoError(t, closeAtDrain(ctx, drain, func() { closed++ }))
			require.Equal(t, row.want, closed)
		})
	}
}

// TestChores: without an index there is neither a census nor a sweep, and nobody runs jobs.
func TestChores(t *testing.T) {
	for name, row := range map[string]struct {
		index bool
		want  int
	}{"with an index": {true, 4}, "without": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			config := conf.Default()
			config.Fleet.Index = row.index
			r := repos{fleet: new(data.Fleet)}
			require.Len(t, newChores(config.Fleet, r, nil, nil, server.NewDrain(config.Server), new(telemetry.Fleet)), row.want)
		})
	}
}
