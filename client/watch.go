package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-kratos/kratos/v2/log"

	v1 "podlink/api/podlink/v1"
)

const (
	// maxWatchSilence is how long a stream may be silent before it is opened again, perhaps at another podlink.
	maxWatchSilence = 10 * time.Second
	// A watch that breaks is opened again after firstWatchPause, and then up to longestWatchPause. Where podlink has none, or does not
	// permit it, it is tried again after watchRest: podlink or its policy may be changed.
	firstWatchPause   = 50 * time.Millisecond
	longestWatchPause = 10 * time.Second
	watchRest         = 5 * time.Minute
)

// errWatchSilent is why a stream is given up.
var errWatchSilent = errors.New("podlink has sent nothing for 10 s")

// linkWatcher is told what a watch says. Its methods are called one after the other, and do not block.
type linkWatcher interface {
	// noted takes in a message that has just come.
	noted(message *v1.WatchLinksReply)
	// broke is for a stream that has ended.
	broke()
}

// watchedService names the links that a watch is about.
type watchedService struct{ namespace, service string }

// linkWatches are the watches of a client: one for each service, however many routers and agents it has.
type linkWatches struct {
	fleet   v1.FleetServiceClient
	log     *log.Helper
	open    context.Context //nolint:containedctx // Its end is the client's, not a call's.
	shut    func()
	running sync.WaitGroup

	mu  sync.Mutex
	all map[watchedService]*linkWatch
}

func newLinkWatches(fleet v1.FleetServiceClient) *linkWatches {
	w := &linkWatches{
		fleet: fleet, log: log.NewHelper(log.With(log.GetLogger(), "module", "podlink")), all: map[watchedService]*linkWatch{},
	}
	w.open, w.shut = context.WithCancel(context.Background())
	return w
}

// join tells the watcher of the service's links from now on, until close. Nil watches tell nobody.
func (w *linkWatches) join(namespace, service string, watcher linkWatcher) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open.Err() != nil {
		return
	}
	of := watchedService{namespace, service}
	if one := w.all[of]; one != nil {
		one.join(watcher)
		return
	}
	one := &linkWatch{watchedService: of, fleet: w.fleet, log: w.log, watchers: []linkWatcher{watcher}}
	w.all[of] = one
	w.running.Go(func() { one.run(w.open) })
}

// close ends the watches, and waits for their end.
func (w *linkWatches) close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.shut() // Under the lock, so that none begins after it.
	w.mu.Unlock()
	w.running.Wait()
}

// linkWatch is the watch of a service's links.
type linkWatch struct {
	watchedService

	fleet  v1.FleetServiceClient
	log    *log.Helper
	token  string // of the last message
	failed bool   // the last stream has ended without a message, and the log says so

	mu       sync.Mutex
	watchers []linkWatcher
}

func (w *linkWatch) join(watcher linkWatcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers = append(w.watchers, watcher)
}

// tell calls a method of each watcher. One that has just joined begins with the next message.
func (w *linkWatch) tell(of func(linkWatcher)) {
	w.mu.Lock()
	watchers := w.watchers
	w.mu.Unlock()
	for _, watcher := range watchers {
		of(watcher)
	}
}

// run keeps a stream until ctx ends.
func (w *linkWatch) run(ctx context.Context) {
	between := &backoff.ExponentialBackOff{
		InitialInterval: firstWatchPause, Multiplier: 2, MaxInterval: longestWatchPause, RandomizationFactor: pauseSpread,
	}
	for ctx.Err() == nil {
		opened := time.Now()
		came, err := w.follow(ctx)
		w.tell(linkWatcher.broke)
		if ctx.Err() != nil {
			return
		}
		if came && time.Since(opened) >= healthyFor {
			between.Reset()
		}
		wait := between.NextBackOff()
		if !came && w.rests(err) {
			wait = watchRest
		}
		sleep(ctx, wait)
	}
}

// follow opens a stream and passes its messages on until it ends. It returns whether one came.
func (w *linkWatch) follow(ctx context.Context) (came bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(maxWatchSilence, func() { cancel(errWatchSilent) })
	defer silent.Stop()
	stream, err := w.fleet.WatchLinks(ctx, &v1.WatchLinksRequest{Namespace: w.namespace, Service: w.service, ResumeToken: w.token})
	for err == nil {
		var message *v1.WatchLinksReply
		if message, err = stream.Recv(); err != nil {
			break
		}
		silent.Reset(maxWatchSilence)
		if w.failed {
			w.log.Infof("watching the links of %s again", w.service)
		}
		came, w.failed, w.token = true, false, message.GetToken()
		w.tell(func(one linkWatcher) { one.noted(message) })
	}
	if errors.Is(context.Cause(ctx), errWatchSilent) {
		err = withCause(ErrUnavailable, errWatchSilent)
	}
	return came, err
}

// rests takes in why a stream has ended before its first message, and says so once. It reports whether another one soon is of no use.
func (w *linkWatch) rests(err error) bool {
	if w.token != "" && errors.Is(err, ErrInvalidArgument) {
		w.token = "" // It is not this podlink's: begin where its feed stands.
		return false
	}
	if !w.failed {
		w.log.Warnf("watching the links of %s failed, retrying; meanwhile links are asked about each CacheTTL: %v", w.service, err)
		w.failed = true
	}
	return unimplemented(err) || errors.Is(err, ErrPermissionDenied) || errors.Is(err, ErrInvalidArgument)
}
