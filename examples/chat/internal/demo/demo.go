// Package demo runs the chat with three pods as processes of this machine, does to them what happens to pods, and checks
// that nothing is lost.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	klog "github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/internal/pod"
	"podlink/examples/chat/internal/store"
)

// pods is how many pods the chat has.
const pods = 3

const (
	// startLimit bounds how long a process may take until it answers, and wholeLimit all of the demo.
	startLimit = 20 * time.Second
	wholeLimit = 110 * time.Second
	// lookPause is between two looks at something that is waited for.
	lookPause = 50 * time.Millisecond
	// takeOver is how long after a dead pod's last report has expired its rooms may be without an answer.
	takeOver = 2 * time.Second
)

// Options are how much the demo does.
type Options struct {
	Podlink string        // podlink's binary
	Rooms   int           // that are talked in
	Every   time.Duration // between two messages of a room
	TTL     time.Duration // how long a pod's report counts
	Linger  time.Duration // how long a pod that stops keeps its rooms
	Steady  time.Duration // how long nothing happens at first
	Static  bool          // a static list instead of etcd, also if there is an etcd
	Out     io.Writer
}

// demo is one run.
type demo struct {
	Options
	logs      string // folder
	etcd      string // address; empty: none
	podlink   string // address
	store     string // address
	discovery registry.Discovery
	client    *client.Client
	talk      *talk
	rooms     *store.Store
	screen    *screen

	mu     sync.Mutex
	pods   [pods]*process
	addrs  [pods]string // to listen on
	closes []func()
}

// Run runs the demo. The error says what did not hold, or could not be done.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, wholeLimit)
	defer cancel()
	logs, err := os.MkdirTemp("", "podlink-demo-")
	if err != nil {
		return err
	}
	d := &demo{Options: o, logs: logs, rooms: store.New()}
	err = d.run(ctx)
	for _, end := range slices.Backward(d.closes) {
		end()
	}
	if err != nil {
		return fmt.Errorf("%w (the processes' logs are in %s)", err, logs)
	}
	return os.RemoveAll(logs)
}

// closing has a function called at the end, the last one first.
func (d *demo) closing(f func()) { d.closes = append(d.closes, f) }

func (d *demo) run(ctx context.Context) error {
	begin := time.Now()
	if err := d.start(ctx); err != nil {
		return err
	}
	talking, stop := context.WithCancel(ctx)
	var talkers sync.WaitGroup
	talkers.Go(func() { d.talk.run(talking) })
	talkers.Go(func() { d.screen.run(talking) })
	err := d.story(ctx)
	stop()
	talkers.Wait()
	if err != nil {
		d.talk.mu.Lock()
		defer d.talk.mu.Unlock()
		return errors.Join(err, d.talk.last)
	}
	return d.summary(time.Since(begin))
}

// start starts everything: etcd, podlink, the store, the pods and the caller.
func (d *demo) start(ctx context.Context) error {
	file, err := os.Create(filepath.Join(d.logs, "caller.log"))
	if err != nil {
		return err
	}
	d.closing(func() { _ = file.Close() })
	klog.SetLogger(klog.With(klog.NewStdLogger(file), "ts", klog.DefaultTimestamp))
	for _, step := range []func(context.Context) error{d.startStore, d.startDiscovery, d.startPodlink, d.startPods, d.startCaller} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startStore(context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It does not wait.
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	chatv1.RegisterStoreServiceServer(server, d.rooms)
	go func() { _ = server.Serve(listener) }() // Until Stop.
	d.closing(server.Stop)
	d.store = listener.Addr().String()
	return nil
}

// startDiscovery starts an etcd if there is one. Else the pods listen on addresses that the caller knows.
func (d *demo) startDiscovery(ctx context.Context) error {
	program, err := exec.LookPath("etcd")
	if d.Static || err != nil {
		fmt.Fprintln(d.Out, "The pods are found by a static list. With etcd on the PATH (Debian: etcd-server) they register themselves there.")
		var list static
		for i := range d.addrs {
			if d.addrs[i], err = freeAddr(); err != nil {
				return err
			}
			list = append(list, &registry.ServiceInstance{
				ID: podName(i), Name: pod.Service, Metadata: map[string]string{client.MetadataPodName: podName(i)},
				Endpoints: []string{"grpc://" + d.addrs[i]},
			})
		}
		d.discovery = list
		return nil
	}
	for i := range d.addrs {
		d.addrs[i] = "127.0.0.1:0"
	}
	if d.etcd, err = freeAddr(); err != nil {
		return err
	}
	fmt.Fprintln(d.Out, "The pods and podlink register themselves in etcd.")
	peer, err := freeAddr()
	if err != nil {
		return err
	}
	p, err := launch(ctx, d.logs, "etcd", nil, program, "--name", "demo", "--data-dir", filepath.Join(d.logs, "etcd"),
		"--listen-client-urls", "http://"+d.etcd, "--advertise-client-urls", "http://"+d.etcd,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "demo=http://"+peer)
	if err != nil {
		return err
	}
	d.closing(p.kill)
	conn, err := clientv3.New(clientv3.Config{Endpoints: []string{d.etcd}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	d.closing(func() { _ = conn.Close() })
	known := etcd.New(conn)
	d.discovery = known
	return d.await(ctx, "etcd does not answer", p, func(ctx context.Context) bool {
		_, err := known.GetService(ctx, "podlink")
		return err == nil
	})
}

func (d *demo) startPodlink(ctx context.Context) error {
	env := []string{"PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0"}
	var (
		err     error
		target  = "discovery:///podlink"
		options = client.Options{Discovery: d.discovery}
	)
	if d.podlink, err = freeAddr(); err != nil {
		return err
	}
	if d.etcd != "" {
		env = append(env, "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS="+d.etcd)
	} else {
		target, options = d.podlink, client.Options{}
	}
	p, err := launch(ctx, d.logs, "podlink", append(env, "PODLINK_SERVER_GRPC_ADDR="+d.podlink), d.Podlink, "-conf", "configs/config.yaml")
	if err != nil {
		return err
	}
	d.closing(p.kill)
	if d.client, err = client.New(target, options); err != nil {
		return err
	}
	d.closing(func() { _ = d.client.Close() })
	return d.await(ctx, "podlink does not answer", p, func(ctx context.Context) bool {
		_, err := d.client.GetServiceState(ctx, &v1.GetServiceStateRequest{Namespace: pod.Namespace, Service: pod.Service})
		return err == nil
	})
}

func podName(i int) string { return fmt.Sprintf("%s-%d", pod.Service, i) }

func (d *demo) startPods(ctx context.Context) error {
	for i := range d.pods {
		if err := d.startPod(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// startPod starts a pod, and returns once it is to be found.
func (d *demo) startPod(ctx context.Context, i int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	began := time.Now().Add(-time.Millisecond)
	p, err := launch(ctx, d.logs, podName(i), nil, self, "pod", "-name", podName(i), "-addr", d.addrs[i], "-store", d.store,
		"-podlink", d.podlink, "-etcd", d.etcd, "-ttl", d.TTL.String(), "-linger", d.Linger.String())
	if err != nil {
		return err
	}
	d.closing(p.kill)
	d.mu.Lock()
	d.pods[i] = p
	d.mu.Unlock()
	return d.found(ctx, i, began)
}

// found waits until a pod has reported since, and is to be found.
func (d *demo) found(ctx context.Context, i int, since time.Time) error {
	return d.await(ctx, podName(i)+" does not serve", d.pods[i], func(ctx context.Context) bool {
		reply, err := d.client.GetServicePod(ctx, &v1.GetServicePodRequest{Namespace: pod.Namespace, Service: pod.Service, PodId: new(int32(i))})
		if err != nil || reply.GetPod().GetHeartbeatMs() < since.UnixMilli() || reply.GetPod().GetRouting() != v1.Routing_READY {
			return false
		}
		if d.etcd == "" {
			return true
		}
		found, err := d.discovery.GetService(ctx, pod.Service)
		return err == nil && slices.ContainsFunc(found, func(instance *registry.ServiceInstance) bool {
			return instance.Metadata[client.MetadataPodID] == fmt.Sprint(i)
		})
	})
}

// await waits until something holds, while the process that makes it hold runs.
func (d *demo) await(ctx context.Context, otherwise string, p *process, holds func(ctx context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for !holds(ctx) {
		select {
		case <-p.done:
			return fmt.Errorf("%s: it has ended: %w", otherwise, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		case <-time.After(lookPause):
		}
	}
	return nil
}

// startCaller makes the client that routes to the pods: this is all that a caller needs.
func (d *demo) startCaller(ctx context.Context) error {
	router, err := d.client.NewRouter(pod.Namespace, pod.Service, client.RouterOptions{
		UID:        client.Field("room"),
		Idempotent: []string{chatv1.ChatService_Say_FullMethodName, chatv1.ChatService_Leave_FullMethodName},
		Patience:   2 * time.Second,
		LinkLife:   10 * time.Second,
	})
	if err != nil {
		return err
	}
	conn, err := kgrpc.DialInsecure(ctx,
		kgrpc.WithEndpoint("discovery:///"+pod.Service), kgrpc.WithDiscovery(d.discovery), kgrpc.WithSubset(0),
		kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()),
		kgrpc.WithTimeout(sayLimit), kgrpc.WithPrintDiscoveryDebugLog(false),
		// A pod that comes back at the same address is called soon.
		kgrpc.WithOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, Jitter: .2, MaxDelay: time.Second}, MinConnectTimeout: time.Second,
		})),
	)
	if err != nil {
		return err
	}
	d.closing(func() { _ = conn.Close() })
	d.talk = newTalk(chatv1.NewChatServiceClient(conn), d.client, d.Rooms, d.Every)
	d.screen = newScreen(d)
	return nil
}

// story is what happens to the pods.
func (d *demo) story(ctx context.Context) error {
	d.screen.headline("%d rooms begin to talk, each every %s", d.Rooms, d.Every)
	if err := d.none(ctx, d.talk.silent, "were never answered"); err != nil {
		return err
	}
	d.talk.begin("steady")
	d.screen.headline("All rooms have been answered. Nothing happens for %s", d.Steady)
	if err := d.rest(ctx, d.Steady); err != nil {
		return err
	}

	d.talk.begin("kill")
	d.pods[2].kill()
	d.screen.headline("chat-2 was killed (kill -9): podlink takes it for dead %s after its last report. %d rooms wait", d.TTL, d.talk.lose(2))
	if err := d.none(ctx, d.talk.waiting, "are not answered for"); err != nil {
		return err
	}
	d.screen.headline("Other pods have answered for all of its rooms. chat-2 starts again")
	if err := d.startPod(ctx, 2); err != nil {
		return err
	}
	if err := d.rest(ctx, d.Every); err != nil {
		return err
	}

	d.talk.begin("freeze")
	if err := d.pods[0].freeze(); err != nil {
		return err
	}
	d.screen.headline("chat-0 is frozen (SIGSTOP): calls to it hang for %s. %d rooms wait", sayLimit, d.talk.lose(0))
	if err := d.none(ctx, d.talk.waiting, "are not answered for"); err != nil {
		return err
	}
	d.screen.headline("Other pods have answered for all of its rooms. chat-0 goes on, and believes for a moment that they are its own")
	if err := d.pods[0].thaw(); err != nil {
		return err
	}
	if err := d.found(ctx, 0, time.Now()); err != nil {
		return err
	}
	if err := d.rest(ctx, d.Every); err != nil {
		return err
	}

	d.talk.begin("drain")
	d.screen.headline("chat-1 is told to stop (SIGTERM): its sessions go on for %s, then other pods take its rooms", d.Linger)
	if err := d.pods[1].terminate(ctx); err != nil {
		return err
	}
	d.screen.headline("chat-1 has ended, empty. It starts again")
	if err := d.startPod(ctx, 1); err != nil {
		return err
	}

	d.talk.begin("rolling restart")
	for i := range d.pods {
		d.screen.headline("Rolling restart: %s", podName(i))
		if err := d.pods[i].terminate(ctx); err != nil {
			return err
		}
		if err := d.startPod(ctx, i); err != nil {
			return err
		}
	}
	return d.rest(ctx, 2*d.Every)
}

// none waits until no rooms are left of which that can be said.
func (d *demo) none(ctx context.Context, rooms func() int, what string) error {
	for rooms() > 0 {
		if err := d.rest(ctx, lookPause); err != nil {
			return fmt.Errorf("%d rooms %s: %w", rooms(), what, err)
		}
	}
	return nil
}

// rest lets the rooms talk for a while.
func (d *demo) rest(ctx context.Context, while time.Duration) error {
	select {
	case <-time.After(while):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
