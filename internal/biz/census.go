package biz

import (
	"context"
	"errors"
	"time"
)

const (
	// censusCheck is the time between two looks at the completeness of the index.
	censusCheck = time.Second
	// maxWalkPart is how many keys one step of a walk over all keys goes over at most, and walkParts how many steps it makes a second.
	maxWalkPart, walkParts = 1000, 20
	// walkTries is how often a step of a walk is tried, a second apart, while the store does not answer.
	walkTries = 30
	// A census that has failed begins again after a pause, which doubles from the first to the last.
	firstCensusPause, lastCensusPause = 5 * time.Second, 5 * time.Minute
)

// Census completes the index: after a gap it goes over all links, and puts each into the index of its pod.
//
// One of the processes does it, under a lease that it keeps. A census covers the gaps that there were when it began: the changes
// before them were made before it reads the links, and those after them are noted by those who make them. Once in a longer time there
// is a census without a gap: a podlink without an index, as an older version, says nothing of its changes.
type Census struct {
	index    IndexRepo
	feed     FeedRepo
	rate     int
	every    time.Duration
	holder   string
	observer FleetObserver
}

// CensusOptions are the settings of a Census.
type CensusOptions struct {
	Rate     int           // keys a second
	Every    time.Duration // the longest time without a census
	Holder   string        // names this process
	Observer FleetObserver
}

// NewCensus returns the census on the repos.
func NewCensus(index IndexRepo, feed FeedRepo, o CensusOptions) *Census {
	return &Census{index: index, feed: feed, rate: o.Rate, every: o.Every, holder: o.Holder, observer: o.Observer}
}

// Run looks for gaps, and covers them if no other process does, until ctx ends.
func (c *Census) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		_, _, _ = c.check(ctx)
		_, _ = withLease(ctx, c.index, "census", c.holder, c.serve)
		_ = pause(ctx, censusCheck)
	}
	return nil
}

// check reads how many gaps there are, and how many of them are covered.
func (c *Census) check(ctx context.Context) (gaps, covered int64, err error) {
	gaps, covered, err = c.index.Completeness(ctx)
	if err == nil {
		c.observer.IndexChecked(covered >= gaps)
	}
	return gaps, covered, err
}

// serve holds each census that is needed until ctx ends.
func (c *Census) serve(ctx context.Context) {
	last, afterFailure := time.Now(), firstCensusPause
	for {
		wait := censusCheck
		gaps, covered, err := c.check(ctx)
		if err == nil && (covered < gaps || time.Since(last) >= c.every) {
			if c.hold(ctx, gaps) == nil {
				last, afterFailure = time.Now(), firstCensusPause
			} else {
				wait, afterFailure = afterFailure, min(2*afterFailure, lastCensusPause)
			}
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// hold goes over all links once, and notes that it has covered the gaps that there were before.
func (c *Census) hold(ctx context.Context, gaps int64) error {
	began := time.Now()
	c.observer.CensusBegan()
	links, err := c.walk(ctx)
	if err == nil {
		err = persist(ctx, func() error { return c.index.Cover(ctx, gaps) })
	}
	c.observer.CensusEnded(links, time.Since(began), err)
	return err
}

// walk puts every link into the index, and returns how many there were. An index that podlink did not write is left, and makes the
// walk fail at its end: the links that it lacks must not be claimed to be listed.
func (c *Census) walk(ctx context.Context) (links int64, err error) {
	pace, size := newPace(c.rate), partSize(c.rate)
	var corrupt error
	for token := ""; ; {
		part, next, err := c.scan(ctx, token, size)
		if err == nil {
			links += int64(len(part))
			err = c.put(ctx, part)
		}
		if errors.Is(err, ErrStoreDataCorrupt) {
			corrupt, err = err, nil
		}
		if err != nil {
			return links, err
		}
		c.observer.CensusWent(len(part))
		if next == "" {
			return links, corrupt
		}
		token = next
		if err := pace.wait(ctx, size); err != nil {
			return links, err
		}
	}
}

// partSize returns how many keys a step of a walk over all keys goes over at that rate.
func partSize(rate int) int { return min(max(rate/walkParts, 1), maxWalkPart) }

// scan reads a part of the links.
func (c *Census) scan(ctx context.Context, token string, size int) (part []Link, next string, err error) {
	err = persist(ctx, func() (err error) {
		part, next, err = c.index.ScanLinks(ctx, "", token, size)
		return err
	})
	return part, next, err
}

// put puts the links into the index. ErrStoreDataCorrupt means that all others are there.
func (c *Census) put(ctx context.Context, part []Link) error {
	updates, now := indexUpdates{}, time.Now()
	for _, link := range part {
		updates.add(link.Key.service(), link.Pod, addOf(link, now))
	}
	var corrupt error
	err := persist(ctx, func() error {
		err := updates.flush(ctx, c.feed)
		if errors.Is(err, ErrStoreDataCorrupt) {
			corrupt = err
		}
		if len(updates) == 0 {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return corrupt
}

// persist repeats a step that may be repeated, while the store does not answer.
func persist(ctx context.Context, step func() error) error {
	for try := 1; ; try++ {
		err := step()
		if err == nil || !isSilence(err) || try == walkTries {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}
