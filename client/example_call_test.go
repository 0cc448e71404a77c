package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
)

// A podlink that chooses the pod of a user, and says what it does not know.
func ExampleNew() {
	addr, stop := runPodlink()
	defer stop()
	podlink, err := client.New(addr, client.Options{Timeout: 10 * time.Second})
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

// runPodlink runs a podlink on an address of the loopback.
func runPodlink() (addr string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err.Error(), func() {}
	}
	addr = listener.Addr().String()
	_ = listener.Close()
	cmd := exec.Command(client.Binary(), "-conf", "../configs/config.yaml")
	cmd.Env = append(os.Environ(), "PODLINK_SERVER_GRPC_ADDR="+addr, "PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		return err.Error(), func() {}
	}
	return addr, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
