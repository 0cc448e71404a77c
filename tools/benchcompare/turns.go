package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// measure is an operation on a path with a number of concurrent callers.
type measure struct {
	path      string // gRPC, HTTP or data layer
	operation string
	callers   int
}

func (m measure) String() string {
	plural := "s"
	if m.callers == 1 {
		plural = ""
	}
	return fmt.Sprintf("%s, %s, %d caller%s", m.path, m.operation, m.callers, plural)
}

// subject is a running process of one revision.
type subject interface {
	// run makes the measure's calls for the duration of a slice.
	run(ctx context.Context, m measure, slice time.Duration) (work, error)
	// stop ends the process.
	stop()
}

// part is a set of measures on the same two processes.
type part struct {
	measures []measure
	// start starts both processes: base first, or head first if swapped.
	start func(ctx context.Context, swapped bool) (base, head subject, err error)
}

// plan is the schedule of a comparison.
type plan struct {
	slice  time.Duration
	turns  int           // slices of each process in a round, per measure
	rounds int           // minimum
	time   time.Duration // limit for extra rounds of undecided parts
}

// comparison runs the rounds and collects their results.
type comparison struct {
	plan
	limit float64
	parts []part
	pairs map[measure][]pair
}

// run runs the minimum number of rounds. Parts that are undecided then get more, until they are decided or the time is over.
func (c *comparison) run(ctx context.Context, progress func(string)) error {
	c.pairs = make(map[measure][]pair)
	begin := time.Now()
	for number, going := 0, true; going; number++ {
		going = false
		for i, p := range c.parts {
			if number >= c.rounds && (c.decided(p) || time.Since(begin) > c.time) {
				continue
			}
			going = true
			progress(fmt.Sprintf("round %d, part %d of %d", number+1, i+1, len(c.parts)))
			if err := c.round(ctx, number, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// decided reports whether all paths of a part are decided.
func (c *comparison) decided(p part) bool {
	return !slices.ContainsFunc(c.paths(p), func(r row) bool { return !r.decided(c.limit) })
}

// round starts fresh processes and runs all measures on both, in turns. It yields one pair per measure, however many slices it
// has: two processes of the same binary differ by some percent for their whole life.
func (c *comparison) round(ctx context.Context, number int, p part) error {
	swapped := number%2 == 1
	base, head, err := p.start(ctx, swapped)
	if err != nil {
		return err
	}
	defer base.stop()
	defer head.stop()
	for i, m := range p.measures {
		pair, err := c.takeTurns(ctx, m, base, head, swapped != (i%2 == 1))
		if err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
		c.pairs[m] = append(c.pairs[m], pair)
	}
	return nil
}

// takeTurns warms both up for a slice, then measures in the order ABBA, where A is base, or head if swapped. So a machine that
// becomes faster or slower favours neither.
func (c *comparison) takeTurns(ctx context.Context, m measure, base, head subject, swapped bool) (pair, error) {
	subjects := [2]subject{base, head}
	var done [2][]work
	for turn := range c.turns + 1 {
		first := 0
		if swapped != (turn%2 == 1) {
			first = 1
		}
		for _, i := range []int{first, 1 - first} {
			w, err := oneSlice(ctx, subjects[i], m, c.slice)
			if err != nil {
				return pair{}, err
			}
			if turn > 0 {
				done[i] = append(done[i], w)
			}
		}
	}
	return pair{base: ofSlices(done[0]), head: ofSlices(done[1])}, nil
}

// oneSlice runs a slice, and repeats one without calls: on a busy machine the callers may not be scheduled at all.
func oneSlice(ctx context.Context, s subject, m measure, slice time.Duration) (work, error) {
	for range 10 {
		if w, err := s.run(ctx, m, slice); err != nil || w.calls > 0 {
			return w, err
		}
	}
	return work{}, errors.New("no call in ten slices")
}

// rows returns the rows of all operations, then those of the paths.
func (c *comparison) rows() []row {
	var operations, paths []row
	for _, p := range c.parts {
		for _, m := range p.measures {
			operations = append(operations, ofOperation(m.String(), c.pairs[m])...)
		}
		paths = append(paths, c.paths(p)...)
	}
	return slices.Concat(operations, paths)
}

// paths returns the rows of a part's paths.
func (c *comparison) paths(p part) []row {
	var names []string
	pairs := make(map[string][][]pair)
	for _, m := range p.measures {
		if pairs[m.path] == nil {
			names = append(names, m.path)
		}
		pairs[m.path] = append(pairs[m.path], c.pairs[m])
	}
	var all []row
	for _, name := range names {
		all = append(all, ofPath(name, pairs[name])...)
	}
	return all
}
