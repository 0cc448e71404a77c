package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	podlinktest "podlink/test/kit/podlink"
)

// A podlink that chooses the pod of a user, and says what it does not know.
func ExampleNew() {
	server, err := podlinktest.Launch(client.Binary())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Kill()
	podlink, err := client.New(server.GRPC, client.Options{Timeout: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer podlink.Close()
	ctx := context.Background()

	_, err = podlink.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "bob", Service: "room"})
	fmt.Println("no pod:", errors.Is(err, client.ErrNoAvailablePod))

	_, err = podlink.SetServiceState(ctx, &v1.SetServiceStateRequest{Namespace: "game", Service: "room", PodId: new(int32(3)), State: "up"})
	fmt.Println("pod 3 reports:", err)

	reply, err := podlink.ComputeLinkedPod(ctx, &v1.ComputeLinkedPodRequest{Namespace: "game", Uid: "bob", Service: "room"})
	fmt.Println("bob:", reply.GetOutcome(), reply.GetLink().GetPodId(), err)
	// Output:
	// no pod: true
	// pod 3 reports: <nil>
	// bob: CREATED 3 <nil>
}
