// Command quickstart looks up the pod of a user over gRPC, and has podlink choose one if the user has none.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9000", "podlink's gRPC address")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err) //nolint:forbidigo // Short is better in an example.
	}
}

func run(addr string) error {
	podlink, err := client.New(addr, client.Options{})
	if err != nil {
		return err
	}
	defer podlink.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	// Pod 0 of the service "room" reports that it is up, with a load of 10.
	_, err = podlink.SetServiceState(ctx, &v1.SetServiceStateRequest{
		Namespace: "game", Service: "room", PodId: proto.Int32(0), State: "up", Load: proto.Int32(10),
	})
	if err != nil {
		return err
	}
	// Which pod has bob? If none: choose the best pod and link bob to it, atomically.
	reply, err := podlink.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{
		Namespace: "game", Uid: "bob", Service: "room",
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s: bob is on pod %d\n", reply.GetOutcome(), reply.GetLink().GetPodId())
	return nil
}
