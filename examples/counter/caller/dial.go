package main

import (
	"context"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"

	"podlink/client"
	"podlink/examples/counter/pods"
)

// dial connects to the service counter. Each call goes to the pod that holds its user.
func dial() (*grpc.ClientConn, error) {
	podlink, err := client.New(pods.Podlink, client.Options{})
	if err != nil {
		return nil, err
	}
	router, err := podlink.NewRouter("dev", "counter", client.RouterOptions{UID: client.Field("uid")})
	if err != nil {
		return nil, err
	}
	return kgrpc.DialInsecure(context.Background(),
		kgrpc.WithEndpoint("discovery:///counter"), kgrpc.WithDiscovery(pods.Discovery{}), kgrpc.WithSubset(0),
		kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()))
}
