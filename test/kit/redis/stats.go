package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// CommandStats is what a server counts of commands: since its start, or since the last CONFIG RESETSTAT.
type CommandStats struct {
	Calls, Failed int // Failed are those of Calls whose reply was an error
	// Time is what the server spent on them, without the network and the protocol. That of a script has that of the
	// commands that it called.
	Time time.Duration
}

// StatsOf adds up what the client's server counts of the commands, named in lower case. One that was never called counts
// nothing.
func StatsOf(tb testing.TB, client *redis.Client, commands ...string) CommandStats {
	tb.Helper()
	info, err := client.InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		tb.Fatalf("INFO commandstats: %v", err)
	}
	var total CommandStats
	for _, command := range commands {
		line, called := info["Commandstats"]["cmdstat_"+command]
		if !called {
			continue
		}
		var calls, rejected, failed int
		var usec int64
		var each string
		_, err := fmt.Sscanf(strings.ReplaceAll(line, ",", " "), "calls=%d usec=%d usec_per_call=%s rejected_calls=%d failed_calls=%d",
			&calls, &usec, &each, &rejected, &failed)
		if err != nil {
			tb.Fatalf("INFO commandstats: %s: %q: %v", command, line, err)
		}
		total.Calls += calls
		total.Failed += failed
		total.Time += time.Duration(usec) * time.Microsecond
	}
	return total
}
