package client

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"

	v1 "podlink/api/podlink/v1"
)

const (
	// readyWarning is the time after which an agent without Ready says that something is missing.
	readyWarning = time.Minute
	// deregisterTimeout bounds one attempt to deregister the app.
	deregisterTimeout = 10 * time.Second
)

// ServerOptions returns the options of a gRPC server of the pod: the given ones, and what the agent needs. The Guard runs after
// Kratos' middleware, which the server may have as ever. Interceptors of the app go into kgrpc.Options, as
// grpc.ChainUnaryInterceptor and grpc.ChainStreamInterceptor: with kgrpc.UnaryInterceptor or kgrpc.StreamInterceptor, which a server
// has once, the app does not start. A server over HTTP gets the Guard by khttp.Middleware.
func (a *Agent) ServerOptions(o ...kgrpc.ServerOption) []kgrpc.ServerOption {
	all := make([]kgrpc.ServerOption, 0, len(o)+3)
	all = append(all, o...)
	return append(all, a.refuseReplaced, kgrpc.UnaryInterceptor(a.guard.unary), kgrpc.StreamInterceptor(a.guard.stream), kgrpc.CustomHealth())
}

// refuseReplaced makes Start fail if the server has interceptors already, which those of the agent replace: a server that silently
// lacks the app's authentication is worse.
func (a *Agent) refuseReplaced(s *kgrpc.Server) {
	for field, option := range map[string]string{"unaryInts": "UnaryInterceptor", "streamInts": "StreamInterceptor"} {
		if has := reflect.ValueOf(s).Elem().FieldByName(field); has.IsValid() && has.Kind() == reflect.Slice && has.Len() > 0 {
			a.mu.Lock()
			a.miswired = fmt.Errorf("podlink: Agent.ServerOptions replaces kgrpc.%s: give the app's interceptors to kgrpc.Options, as grpc.Chain%s",
				option, option)
			a.mu.Unlock()
		}
	}
}

// AppOptions returns the options of the pod's kratos.App: the given ones, and what the agent needs. The app has these servers and
// the agent, and is registered with AgentOptions.Registrar and the agent's metadata, so that kratos.Server, and with a Registrar
// kratos.Registrar, have no effect among the given ones. The gRPC servers get the health service that is SERVING while the pod is.
//
// The pod takes new users after the app has started and registered itself, and after the given kratos.AfterStart functions; it
// drains before the given kratos.BeforeStop functions.
func (a *Agent) AppOptions(servers []transport.Server, o ...kratos.Option) []kratos.Option {
	all := make([]transport.Server, 0, len(servers)+1)
	for _, server := range servers {
		if over, ok := server.(healthRegistrar); ok {
			a.health.register(over, a.log)
		}
		all = append(all, server)
	}
	metadata := maps.Clone(kratos.New(o...).Metadata())
	if metadata == nil {
		metadata = make(map[string]string)
	}
	maps.Copy(metadata, a.Metadata())
	options := make([]kratos.Option, 0, len(o)+5)
	options = append(options, kratos.BeforeStop(a.Drain))
	options = append(options, o...)
	options = append(options, kratos.Server(append(all, a)...), kratos.Metadata(metadata), kratos.AfterStart(a.Ready))
	if a.options.Registrar != nil {
		options = append(options, kratos.Registrar(a.options.Registrar))
	}
	return options
}

// Ready makes the pod take new users, as the app has started and is registered. It is for kratos.AfterStart; AppOptions calls it.
// Until then the pod reports DENY_NEW: users whom podlink links to it could not reach it yet. It does not fail.
func (a *Agent) Ready(ctx context.Context) error {
	a.readied.Do(func() {
		close(a.ready)
		a.health.serve()
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.isDraining() {
			a.reporter.setRouting(v1.Routing_READY)
		}
	})
	if state, _ := a.lease.state(); state.superseded { // The app may have been registered after it was deregistered.
		_ = a.deregister(ctx)
	}
	return nil
}

// awaitReady logs that Ready is missing.
func (a *Agent) awaitReady(ctx context.Context) {
	late := time.NewTimer(readyWarning)
	defer late.Stop()
	select {
	case <-late.C:
		a.log.Warnf("pod %d of %s: takes no new users, as Agent.Ready was not called within %s: wire the agent by Agent.AppOptions",
			a.pod, a.service, readyWarning)
	case <-a.ready:
	case <-ctx.Done():
	}
}

// retire takes the app out of the registry and makes it NOT_SERVING when another process has taken over the pod. It repeats the
// first each TTL until it succeeds.
func (a *Agent) retire(ctx context.Context) {
	if _, err := a.lease.wait(ctx, func(s leaseState) bool { return s.superseded }); err != nil {
		return
	}
	a.health.end()
	for logged := false; ; logged = true {
		begun := time.Now()
		err := a.deregister(ctx)
		if err == nil {
			return
		}
		if !logged {
			a.log.Warnf("pod %d of %s: deregistering this process failed, retrying: %v", a.pod, a.service, err)
		}
		if !pauseUntil(ctx, begun.Add(a.options.TTL)) {
			return
		}
	}
}

// deregister takes the app out of the registry.
func (a *Agent) deregister(ctx context.Context) error {
	a.mu.Lock()
	app := a.app
	a.mu.Unlock()
	if app == nil || a.options.Registrar == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deregisterTimeout)
	defer cancel()
	return a.options.Registrar.Deregister(ctx, &registry.ServiceInstance{
		ID: app.ID(), Name: app.Name(), Version: app.Version(), Metadata: app.Metadata(), Endpoints: app.Endpoint(),
	})
}
