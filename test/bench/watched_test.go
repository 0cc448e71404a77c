//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	otlptest "podlink/test/kit/otlp"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// scrapeInterval is how often metrics are asked for, more often than a Prometheus does.
const scrapeInterval = time.Second

// pairsEach is the number of pairs of processes per run. Two processes of the same binary differ by 5 % or more for their whole
// life, so many short-lived ones say more than two long-lived ones.
func pairsEach() int {
	if quick {
		return 1
	}
	return 8
}

// TestWatched compares podlink with observability, scraped and with 1 % of the requests traced, and podlink without metrics and
// traces.
func TestWatched(t *testing.T) {
	const watched, silent = "watched", "silent"
	silentBinary, err := podlinktest.Build(t.TempDir(), silence...)
	require.NoError(t, err)
	redis, receiver := redistest.Start(t), otlptest.Start(t)
	a, onRedis := &arena{redis: redisPID(t, redis)}, append(podlinktest.OnRedis("standalone", redis.Addr()), "PODLINK_SERVER_STOP_DRAIN=0s")
	const perSecond, ofSilent, cpuEach = 0, 1, 2
	table := &Table{
		ID:    "service-watched",
		Title: "What it costs to be watched",
		Note: fmt.Sprintf("podlink scraped every second, with 1 %% of the requests traced and exported, against podlink built "+
			"without metrics and with tracing off; %d pairs of processes in a run. The receiver of the traces runs on the "+
			"same machine.", pairsEach()),
		Columns: []string{"calls/s", "of the silent one's", "server's CPU per call, µs"},
	}
	operations := []operation{get, set}
	for run := range runs {
		total := make(map[string]*figures) // by row
		for pair := range pairsEach() {
			progress(run, "watched or not, pair %d of %d", pair+1, pairsEach())
			sides := []*side{
				newSide(t, watched, podlinktest.Start(t, binary, append(slices.Clone(onRedis),
					"PODLINK_TRACE_ENDPOINT="+receiver.Addr, "PODLINK_TRACE_SAMPLING_RATIO=0.01")...)),
				newSide(t, silent, podlinktest.Start(t, silentBinary, onRedis...)),
			}
			if pair == 0 && run == 0 {
				fill(t, sides[0], users)
			}
			stop := scrape(sides[0].process.Admin)
			if pair%2 == 1 { // Alternate, since the machine changes between the first and the second.
				slices.Reverse(sides)
			}
			for _, over := range transports {
				for _, op := range operations {
					contenders := make([]contender, len(sides))
					for i, s := range sides {
						contenders[i] = contender{s, over.call(s, op)}
					}
					for i, f := range a.inTurns(t, connections, contenders...) {
						row := op.name + " over " + over.name + ", " + sides[i].name
						if total[row] == nil {
							total[row] = new(figures)
						}
						total[row].add(f.load)
						total[row].cpu.server += f.cpu.server
					}
				}
			}
			stop()
			for _, s := range sides {
				require.Zero(t, s.process.Stop(t)) // The stop flushes its traces.
			}
		}
		for _, over := range transports {
			for _, op := range operations {
				name := op.name + " over " + over.name + ", "
				for _, side := range []string{watched, silent} {
					table.add(name+side, perSecond, total[name+side].rate())
					table.add(name+side, cpuEach, total[name+side].perCall(total[name+side].cpu.server))
				}
				table.add(name+watched, ofSilent, total[name+watched].rate()/total[name+silent].rate())
			}
		}
	}
	require.NotEmpty(t, receiver.All(), "requests were traced")
	results.tables(table)
	for _, over := range transports {
		for _, op := range operations {
			name := op.name + " over " + over.name
			results.target(Target{
				Measure: name + ": throughput with metrics and 1 % traces, of that without both",
				AtLeast: true, Limit: .95, Runs: table.row(name + ", " + watched).Cells[ofSilent],
			})
		}
	}
}

// scrape reads the metrics periodically until stop, as Prometheus does.
func scrape(admin string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{}}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", http.NoBody)
			if err != nil {
				return
			}
			request.Header.Set("Accept", "application/openmetrics-text")
			if response, err := client.Do(request); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
			select {
			case <-time.After(scrapeInterval):
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		cancel()
		<-ended
		client.CloseIdleConnections()
	}
}
