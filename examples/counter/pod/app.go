package main

import (
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"

	"podlink/client"
	counterv1 "podlink/examples/counter/api/counter/v1"
	"podlink/examples/counter/pods"
)

// newApp returns a pod of the service counter.
func newApp(counter *counter) (*kratos.App, error) {
	podlink, err := client.New(pods.Podlink, client.Options{})
	if err != nil {
		return nil, err
	}
	counter.agent, err = podlink.NewAgent("dev", "counter", client.AgentOptions{
		UID: client.Field("uid"), OnLost: counter.lost, OnDrain: counter.endAll,
	})
	if err != nil {
		return nil, err
	}
	server := kgrpc.NewServer(counter.agent.ServerOptions(kgrpc.Address(pods.Address(counter.agent.PodID())))...)
	counterv1.RegisterCounterServiceServer(server, counter)
	return kratos.New(counter.agent.AppOptions([]transport.Server{server}, kratos.Name("counter"))...), nil
}
