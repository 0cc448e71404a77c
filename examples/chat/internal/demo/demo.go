// Package demo runs the chat with three pods on this machine. It kills, freezes, drains, empties, restarts and doubles them, takes
// podlink and Redis away, and checks that no message is lost and no room of a living pod moved.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	klog "github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"

	"podlink/client"
	"podlink/examples/chat/caller"
	"podlink/examples/chat/internal/store"
	"podlink/examples/chat/internal/watcher"
)

// pods is the number of pods of the chat.
const pods = 3

const (
	// demoTimeout bounds the whole demo.
	demoTimeout = 110 * time.Second
	// pollInterval is the pause between two checks of a condition that the demo waits for.
	pollInterval = 50 * time.Millisecond
	// takeoverTimeout is how long a dead pod's rooms may stay unanswered after its last report has expired: until another pod's
	// report shows that, and a caller asks again.
	takeoverTimeout = 3 * time.Second
)

// Options configures a run of the demo.
type Options struct {
	Podlink string        // podlink's binary
	Rooms   int           // number of chat rooms
	Every   time.Duration // interval between two messages in a room
	TTL     time.Duration // lifetime of a pod's report to podlink
	Linger  time.Duration // how long a stopping pod keeps its rooms
	Steady  time.Duration // length of the phase without faults
	Static  bool          // use a static list of pods even if etcd is installed
	Secure  bool          // podlink asks for certificates and tokens
	Out     io.Writer
}

// demo is one run.
type demo struct {
	Options
	logs      string // directory
	etcd      string // address; empty without etcd
	redis     string // address; empty without Redis: podlink's store is embedded
	podlink   string // address
	store     string // address
	discovery registry.Discovery
	client    *client.Client // of podlink, for the checks
	talk      *talk
	rooms     *store.Store
	screen    *screen
	watcher   *watcher.Watcher

	relocation relocation
	following  following

	doors *doors   // nil: podlink is open
	tries int      // to do what one may not do
	letIn []string // those of them that were not refused

	redisServer   *process
	podlinkServer *process

	mu     sync.Mutex
	pods   [pods]*process
	addrs  [pods]string // listen addresses
	double string       // that of the second process of a pod
	onEnd  []func()
}

// Run runs the demo. It returns an error if a promise was broken or a step failed.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	logs, err := os.MkdirTemp("", "podlink-demo-")
	if err != nil {
		return err
	}
	d := &demo{Options: o, logs: logs, rooms: store.New()}
	err = d.run(ctx)
	for _, end := range slices.Backward(d.onEnd) {
		end()
	}
	if err != nil {
		return fmt.Errorf("%w (the processes' logs are in %s)", err, logs)
	}
	return os.RemoveAll(logs)
}

// onClose registers a function to call when the demo ends, in reverse order.
func (d *demo) onClose(f func()) { d.onEnd = append(d.onEnd, f) }

func (d *demo) run(ctx context.Context) error {
	begin := time.Now()
	if err := d.start(ctx); err != nil {
		return err
	}
	talking, stop := context.WithCancel(ctx)
	var talkers sync.WaitGroup
	talkers.Go(func() { d.talk.run(talking) })
	talkers.Go(func() { d.screen.run(talking) })
	err := d.scenario(ctx)
	stop()
	talkers.Wait()
	if err != nil {
		d.talk.mu.Lock()
		defer d.talk.mu.Unlock()
		return errors.Join(err, d.talk.last)
	}
	if err := d.compare(ctx); err != nil {
		return err
	}
	return d.summary(time.Since(begin))
}

// start makes the doors, and starts the store, etcd, Redis, podlink, the watcher, the pods and the caller, in the order of their
// dependencies.
func (d *demo) start(ctx context.Context) error {
	file, err := os.Create(filepath.Join(d.logs, "caller.log"))
	if err != nil {
		return err
	}
	d.onClose(func() { _ = file.Close() })
	klog.SetLogger(klog.With(klog.NewStdLogger(file), "ts", klog.DefaultTimestamp))
	for _, step := range []func(context.Context) error{
		d.openDoors, d.startStore, d.startDiscovery, d.startRedis, d.startPodlink, d.startWatcher, d.startPods, d.startCaller,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startCaller starts the caller of the chat, whose calls are routed to the pods.
func (d *demo) startCaller(ctx context.Context) error {
	target, options := d.podlinkTarget(routing)
	chat, err := caller.New(ctx, target, options, d.discovery)
	if err != nil {
		return err
	}
	d.onClose(func() { _ = chat.Close() })
	d.talk = newTalk(chat, d.client, d.Rooms, d.Every)
	d.screen = newScreen(d)
	return nil
}
