//go:build sim

package sim

import (
	"context"
	"encoding/json"
	"net/rpc"
	"os"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/test/kit/sim"
)

// podVariable is the environment variable that makes the test binary a pod: its podConfig in JSON.
const podVariable = "PODLINK_SIM_POD"

// podConfig is what a pod's process is told.
type podConfig struct {
	Name     string // of the process, unique
	Ordinal  int32
	Address  string   // to listen on
	Podlinks []string // addresses
	World    string   // address of the simulator, which has the storage and the registry
	TTL      time.Duration
}

// runPod is the main function of a pod: an app of Kratos with an agent.
func runPod(text string) error {
	var config podConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	connection, err := rpc.Dial("tcp", config.World)
	if err != nil {
		return err
	}
	defer connection.Close()
	world := remoteWorld{connection}
	podlink, err := client.New("discovery:///podlink", client.Options{Discovery: sim.NewRegistry("podlink", config.Podlinks...)})
	if err != nil {
		return err
	}
	defer podlink.Close()
	logger := log.NewFilter(log.NewStdLogger(os.Stdout), log.FilterLevel(log.LevelInfo))
	agent, err := sim.NewAgent(podlink, sim.AgentOptions{
		Ordinal: config.Ordinal, TTL: config.TTL, Registrar: world, Logger: logger,
		OnLost: func(uid string, epoch int64) { world.lost(config, uid, epoch) },
	})
	if err != nil {
		return err
	}
	server := kgrpc.NewServer(agent.ServerOptions(kgrpc.Address(config.Address), kgrpc.Timeout(callTimeout))...)
	v1.RegisterLinkServiceServer(server, &podService{service: &sim.Service{
		Name: config.Name, Storage: world, Start: agent.StartSession, Running: func() bool { return true }, Keep: 2 * config.TTL,
		Wrote: func(string, sim.Session) {},
	}})
	return kratos.New(agent.AppOptions([]transport.Server{server},
		kratos.ID(config.Name), kratos.Name(sim.ServiceName), kratos.Logger(logger))...).Run()
}

// podService is the service of the pods: ListLinkedServices, where the namespace is the action.
type podService struct {
	v1.UnimplementedLinkServiceServer

	service *sim.Service
}

// ListLinkedServices implements v1.LinkServiceServer.
func (s *podService) ListLinkedServices(
	ctx context.Context, r *v1.ListLinkedServicesRequest,
) (*v1.ListLinkedServicesReply, error) {
	return &v1.ListLinkedServicesReply{}, s.service.Handle(ctx, r.GetNamespace(), r.GetUid())
}

// remoteWorld is the simulator as the pods reach it.
type remoteWorld struct{ *rpc.Client }

// Access is a use of the storage.
type Access struct {
	UID, Process string
	Epoch, Value int64
	Ordinal      int32
}

// Result is the result of an Access.
type Result struct {
	Value int64
	OK    bool
}

// Load implements sim.Fenced.
func (w remoteWorld) Load(uid, process string, epoch int64) (value int64, ok bool) {
	var result Result
	err := w.Call("World.Load", Access{UID: uid, Process: process, Epoch: epoch}, &result)
	return result.Value, result.OK && err == nil
}

// Write implements sim.Fenced.
func (w remoteWorld) Write(uid, process string, epoch, value int64) bool {
	var result Result
	err := w.Call("World.Write", Access{UID: uid, Process: process, Epoch: epoch, Value: value}, &result)
	return result.OK && err == nil
}

// Register implements registry.Registrar.
func (w remoteWorld) Register(_ context.Context, instance *registry.ServiceInstance) error {
	return w.Call("World.Register", instance, new(bool))
}

// Deregister implements registry.Registrar.
func (w remoteWorld) Deregister(_ context.Context, instance *registry.ServiceInstance) error {
	return w.Call("World.Deregister", instance, new(bool))
}

func (w remoteWorld) lost(config podConfig, uid string, epoch int64) {
	_ = w.Call("World.Lost", Access{UID: uid, Process: config.Name, Epoch: epoch, Ordinal: config.Ordinal}, new(bool))
}
