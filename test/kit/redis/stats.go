package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// CommandStats is a server's statistics of commands since its start or the last CONFIG RESETSTAT.
type CommandStats struct {
	Calls, Failed int // Failed: of Calls, those with an error reply
	// Time is the execution time, without network and protocol. A script's includes its commands.
	Time time.Duration
}

// StatsOf returns the sum of the statistics of the commands, named in lower case, on the client's server.
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
