// Command benchcompare compares the speed of the working tree (head) with an earlier revision (base), and fails if head is
// slower: `make bench-compare BASE=REV`. With -doors it compares the working tree with auth.mode required and JWTs (head) with
// itself with auth.mode off (base): `make bench-doors`.
//
// Usage: go run ./tools/benchcompare (-base REV | -doors) [-min 0.97]
//
// Two things to know before changing it. Base does not contain this tool, so it measures what every revision has: the API over
// gRPC and HTTP, with head's load generator, and the data layer with each revision's own test/bench. And two processes of the
// same binary differ by more than the differences to detect. So a comparison is many rounds, each with fresh processes, and
// ratios are taken within a round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// The paths of a call.
const (
	overGRPC  = "gRPC"
	overHTTP  = "HTTP"
	dataLayer = "data layer"
)

// minRounds is the fewest rounds whose median survives an outlier.
const minRounds = 5

// options are the flags.
type options struct {
	base  string // a revision
	doors bool
	limit float64
	plan
}

func main() {
	var o options
	flag.StringVar(&o.base, "base", "", "the `revision` to compare the working tree with")
	flag.BoolVar(&o.doors, "doors", false, "compare the working tree with and without tokens instead")
	flag.Float64Var(&o.limit, "min", 0.97, "the lowest `ratio` of head to base that passes")
	flag.IntVar(&o.rounds, "rounds", 20, "the minimum `number` of rounds")
	flag.DurationVar(&o.time, "time", 12*time.Minute, "the `time` limit for extra rounds of undecided paths")
	flag.DurationVar(&o.slice, "slice", 25*time.Millisecond, "the `duration` of a turn")
	flag.IntVar(&o.turns, "turns", 8, "`turns` per process, measure and round")
	flag.Parse()
	if (o.base == "") != o.doors || flag.NArg() > 0 || o.rounds < minRounds {
		fmt.Fprintf(os.Stderr, "benchcompare needs either -base or -doors, and at least %d rounds\n", minRounds)
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
}

// run compares the tree in the working directory with base. It removes its temporary files.
func run(ctx context.Context, o options, out, log io.Writer) (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "podlink-benchcompare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	begin := time.Now()
	progress := func(text string) { fmt.Fprintf(log, "[%s] %s\n", time.Since(begin).Round(time.Second), text) }

	tree, baseOut, headOut := filepath.Join(temp, "tree"), filepath.Join(temp, "base"), filepath.Join(temp, "head")
	for _, dir := range []string{tree, baseOut, headOut} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if !o.doors {
		if err := export(ctx, root, o.base, tree); err != nil {
			return err
		}
	}
	progress("building the working tree")
	head, err := build(ctx, root, root, headOut)
	if err != nil {
		return err
	}
	if o.doors {
		secured, err := head.withDoors(baseOut)
		if err != nil {
			return err
		}
		return o.compare(ctx, out, progress, requestPath(head, secured, unaudited()))
	}
	progress("building " + o.base)
	base, err := build(ctx, root, tree, baseOut)
	if err != nil {
		return err
	}
	return o.compare(ctx, out, progress, requestPath(base, head, operations), dataLayers(base, head))
}

// compare measures the parts and prints the report.
func (o options) compare(ctx context.Context, out io.Writer, progress func(string), parts ...part) error {
	c := comparison{plan: o.plan, limit: o.limit, parts: parts}
	if err := c.run(ctx, progress); err != nil {
		return err
	}
	return report(out, c.rows(), o.limit)
}

// requestPath measures operations over podlink's API. Both podlinks share a Redis, with different prefixes.
func requestPath(base, head revision, measured []operation) part {
	var p part
	for _, path := range []string{overGRPC, overHTTP} {
		for _, op := range measured {
			for _, callers := range []int{1, crowd} {
				p.measures = append(p.measures, measure{path, op.name, callers})
			}
		}
	}
	p.start = func(ctx context.Context, swapped bool) (subject, subject, error) {
		redis, addr, err := startRedis(ctx)
		if err != nil {
			return nil, nil, err
		}
		one, other, err := startBoth(swapped, func(isHead bool) (subject, error) {
			if isHead {
				return startServer(ctx, head, addr, "head")
			}
			return startServer(ctx, base, addr, "base")
		})
		if err != nil {
			redis.stop()
			return nil, nil, err
		}
		return one, withRedis{other, redis}, nil
	}
	return p
}

// withRedis is a subject that also stops the shared Redis.
type withRedis struct {
	subject
	redis *process
}

func (w withRedis) stop() {
	w.subject.stop()
	w.redis.stop()
}

// dataLayers measures internal/data, called in-process by each revision's worker.
func dataLayers(base, head revision) part {
	p := part{start: func(ctx context.Context, swapped bool) (subject, subject, error) {
		return startBoth(swapped, func(isHead bool) (subject, error) {
			if isHead {
				return startWorker(ctx, head)
			}
			return startWorker(ctx, base)
		})
	}}
	for _, operation := range []string{"Get", "Set", "Compute, standing", "SetIfAbsent", "Compute, new"} {
		for _, callers := range []int{1, 256} {
			p.measures = append(p.measures, measure{dataLayer, operation, callers})
		}
	}
	return p
}

// startBoth starts base, then head, or the other way round.
func startBoth(swapped bool, start func(isHead bool) (subject, error)) (base, head subject, err error) {
	first, err := start(swapped)
	if err != nil {
		return nil, nil, err
	}
	second, err := start(!swapped)
	if err != nil {
		first.stop()
		return nil, nil, err
	}
	if swapped {
		return second, first, nil
	}
	return first, second, nil
}
