package biz

// Watches has the watches of this process.
type Watches struct{}

// WatchObserver observes watches.
type WatchObserver interface{}

// NewWatches returns the watches on the repo.
func NewWatches(FeedRepo, WatchObserver) *Watches { return new(Watches) }

// Close ends all watches.
func (w *Watches) Close() {}
