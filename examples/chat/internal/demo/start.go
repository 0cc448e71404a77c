package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/names"
)

// startTimeout bounds how long a process may take from its start to its first answer.
const startTimeout = 20 * time.Second

// anyAddr is an address with a port that the system chooses.
const anyAddr = "127.0.0.1:0"

func (d *demo) startStore(context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // Listen does not block.
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	chatv1.RegisterStoreServiceServer(server, d.rooms)
	go func() { _ = server.Serve(listener) }() // Until Stop.
	d.onClose(server.Stop)
	d.store = listener.Addr().String()
	return nil
}

// startDiscovery starts etcd if it is installed. Otherwise the pods listen on fixed addresses, listed in a static discovery.
func (d *demo) startDiscovery(ctx context.Context) error {
	program, err := exec.LookPath("etcd")
	if d.Static || err != nil {
		fmt.Fprintln(d.Out, "Using a static list of pods. With etcd on the PATH (Debian: etcd-server), the pods register themselves there.")
		var list static
		for i := range d.addrs {
			if d.addrs[i], err = freeAddr(); err != nil {
				return err
			}
			list = append(list, &registry.ServiceInstance{
				ID: podName(i), Name: names.Service, Metadata: map[string]string{client.MetadataPodName: podName(i)},
				Endpoints: []string{"grpc://" + d.addrs[i]},
			})
		}
		if d.double, err = freeAddr(); err != nil {
			return err
		}
		list = append(list, &registry.ServiceInstance{
			ID: podName(doubled) + "-again", Name: names.Service, Metadata: map[string]string{client.MetadataPodName: podName(doubled)},
			Endpoints: []string{"grpc://" + d.double},
		})
		d.discovery = list
		return nil
	}
	for i := range d.addrs {
		d.addrs[i] = anyAddr
	}
	d.double = anyAddr
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
	d.onClose(p.kill)
	conn, err := clientv3.New(clientv3.Config{Endpoints: []string{d.etcd}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	d.onClose(func() { _ = conn.Close() })
	discovery := etcd.New(conn)
	d.discovery = discovery
	return d.await(ctx, "etcd does not answer", p, func(ctx context.Context) bool {
		_, err := discovery.GetService(ctx, "podlink")
		return err == nil
	})
}

// startRedis starts Redis if it is installed.
func (d *demo) startRedis(ctx context.Context) (err error) {
	if _, missing := exec.LookPath("redis-server"); missing != nil {
		fmt.Fprintln(d.Out, "podlink keeps its data in memory. With redis-server on the PATH (Debian: redis-server), it keeps them there,")
		fmt.Fprintln(d.Out, "and the demo takes Redis away, too.")
		return nil //nolint:nilerr // The demo goes on without it.
	}
	if d.redis, err = freeAddr(); err != nil {
		return err
	}
	return d.launchRedis(ctx)
}

// launchRedis starts Redis at its address, with what it has stored.
func (d *demo) launchRedis(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.redis)
	if err != nil {
		return err
	}
	d.redisServer, err = launch(ctx, d.logs, "redis", nil, "redis-server", "--bind", host, "--port", port, "--dir", d.logs,
		"--save", "", "--appendonly", "yes")
	if err != nil {
		return err
	}
	d.onClose(d.redisServer.kill)
	return d.await(ctx, "Redis does not answer", d.redisServer, func(ctx context.Context) bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.redis)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (d *demo) startPodlink(ctx context.Context) (err error) {
	if d.podlink, err = freeAddr(); err != nil {
		return err
	}
	target, options := d.podlinkTarget(operating)
	if d.client, err = client.New(target, options); err != nil { //nolint:contextcheck // It outlives ctx.
		return err
	}
	d.onClose(func() { _ = d.client.Close() })
	return d.launchPodlink(ctx)
}

// podlinkTarget is where the client of that name finds podlink, and what it shows there.
func (d *demo) podlinkTarget(name string) (string, client.Options) {
	if d.etcd == "" {
		return d.podlink, d.doors.show(client.Options{}, name)
	}
	return "discovery:///podlink", d.doors.show(client.Options{Discovery: d.discovery}, name)
}

// launchPodlink starts podlink at its address, and waits until it answers.
func (d *demo) launchPodlink(ctx context.Context) (err error) {
	env := []string{
		"PODLINK_SERVER_HTTP_ADDR=" + anyAddr, "PODLINK_SERVER_ADMIN_ADDR=" + anyAddr, "PODLINK_SERVER_GRPC_ADDR=" + d.podlink,
	}
	if d.etcd != "" {
		env = append(env, "PODLINK_REGISTRY_TYPE=etcd", "PODLINK_REGISTRY_ADDRS="+d.etcd)
	}
	env = append(env, d.doors.env()...)
	switch {
	case d.redis != "":
		env = append(env, "PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_ADDRS="+d.redis)
	case d.etcd != "":
		env = append(env, "PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true")
	}
	d.podlinkServer, err = launch(ctx, d.logs, "podlink", env, d.Podlink, "-conf", "configs/config.yaml")
	if err != nil {
		return err
	}
	d.onClose(d.podlinkServer.kill)
	return d.awaitPodlink(ctx)
}

// awaitPodlink waits until podlink answers, from its store.
func (d *demo) awaitPodlink(ctx context.Context) error {
	return d.await(ctx, "podlink does not answer", d.podlinkServer, func(ctx context.Context) bool {
		_, err := d.client.GetServiceState(ctx, &v1.GetServiceStateRequest{Namespace: names.Namespace, Service: names.Service})
		return err == nil
	})
}

func podName(i int) string { return fmt.Sprintf("%s-%d", names.Service, i) }

func (d *demo) startPods(ctx context.Context) error {
	for i := range d.pods {
		if err := d.startPod(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// startPod starts a pod and waits until it is serving.
func (d *demo) startPod(ctx context.Context, i int) error {
	began := time.Now().Add(-time.Millisecond)
	if err := d.launchPod(ctx, i, d.addrs[i]); err != nil {
		return err
	}
	return d.waitServing(ctx, i, began)
}

// launchPod starts a process of a pod.
func (d *demo) launchPod(ctx context.Context, i int, addr string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	flags := append([]string{
		"pod", "-name", podName(i), "-addr", addr, "-store", d.store,
		"-podlink", d.podlink, "-etcd", d.etcd, "-ttl", d.TTL.String(), "-linger", d.Linger.String(),
	}, d.doors.flags(podName(i))...)
	p, err := launch(ctx, d.logs, podName(i), nil, self, flags...)
	if err != nil {
		return err
	}
	d.onClose(p.kill)
	d.mu.Lock()
	d.pods[i] = p
	d.mu.Unlock()
	return nil
}

// waitServing waits until a pod has reported READY after the given time and is discoverable.
func (d *demo) waitServing(ctx context.Context, i int, since time.Time) error {
	return d.await(ctx, podName(i)+" does not serve", d.pods[i], func(ctx context.Context) bool {
		report := d.podReport(ctx, i)
		if report.GetHeartbeatMs() < since.UnixMilli() || report.GetRouting() != v1.Routing_READY {
			return false
		}
		if d.etcd == "" {
			return true
		}
		instances, err := d.discovery.GetService(ctx, names.Service)
		return err == nil && slices.ContainsFunc(instances, func(instance *registry.ServiceInstance) bool {
			return instance.Metadata[client.MetadataPodID] == fmt.Sprint(i)
		})
	})
}

// podReport returns what podlink knows about a pod; nil: nothing.
func (d *demo) podReport(ctx context.Context, i int) *v1.Pod {
	reply, err := d.client.GetServicePod(ctx, &v1.GetServicePodRequest{
		Namespace: names.Namespace, Service: names.Service, PodId: new(int32(i)),
	})
	if err != nil {
		return nil
	}
	return reply.GetPod()
}

// await polls a condition until it is true. It fails with the given text after startTimeout, or as soon as the process exits.
func (d *demo) await(ctx context.Context, failure string, p *process, condition func(ctx context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !condition(ctx) {
		select {
		case <-p.done:
			return fmt.Errorf("%s: it has exited: %w", failure, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", failure, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
	return nil
}
