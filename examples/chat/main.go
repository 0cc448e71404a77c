// Command chat is a chat whose rooms live in the memory of pods, with a demo that runs on one machine. See its README.
//
// Usage:
//
//	chat demo [flags]   run podlink, three pods and a caller, and make the pods fail
//	chat pod [flags]    run one pod
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/examples/chat/internal/demo"
	"podlink/examples/chat/internal/pod"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	commands := map[string]func(args []string) error{"demo": runDemo, "pod": runPod}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: chat demo|pod [flags]; -h shows them")
		return 2
	}
	switch err := commands[args[0]](args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintf(os.Stderr, "chat %s: %v\n", args[0], err)
		return 1
	}
}

func runDemo(args []string) error {
	o := demo.Options{Out: os.Stdout}
	flags := flag.NewFlagSet("chat demo", flag.ContinueOnError)
	flags.StringVar(&o.Podlink, "podlink", "bin/podlink", "podlink's binary")
	flags.IntVar(&o.Rooms, "rooms", 1000, "number of rooms")
	flags.DurationVar(&o.Every, "every", 2*time.Second, "interval between two messages in a room")
	flags.DurationVar(&o.TTL, "ttl", 3*time.Second, "lifetime of a pod's report to podlink")
	flags.DurationVar(&o.Linger, "linger", 2*time.Second, "how long a stopping pod keeps its rooms")
	flags.DurationVar(&o.Steady, "steady", 4*time.Second, "length of the first phase, without faults")
	flags.BoolVar(&o.Static, "static", false, "use a static list of pods even if etcd is installed")
	flags.BoolVar(&o.Secure, "secure", false, "podlink asks for certificates and tokens, which the demo makes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return demo.Run(ctx, o)
}

func runPod(args []string) error {
	o := pod.Options{Logger: log.With(log.NewStdLogger(io.Writer(os.Stderr)), "ts", log.DefaultTimestamp)}
	flags := flag.NewFlagSet("chat pod", flag.ContinueOnError)
	flags.StringVar(&o.Name, "name", "", "the pod's name, such as chat-2; empty: POD_NAME, or the host name")
	flags.StringVar(&o.Addr, "addr", "127.0.0.1:0", "listen address")
	flags.StringVar(&o.Store, "store", "", "address of the rooms' store")
	flags.StringVar(&o.Podlink, "podlink", "127.0.0.1:9000", "podlink's gRPC address, used without etcd")
	flags.StringVar(&o.Shows.CA, "ca", "", "PEM file of the CA of podlink's certificate; empty: no TLS")
	flags.StringVar(&o.Shows.Cert, "cert", "", "PEM file of the pod's certificate")
	flags.StringVar(&o.Shows.Key, "key", "", "PEM file of its private key")
	flags.StringVar(&o.Shows.Token, "token", "", "file with the pod's token for podlink")
	flags.StringVar(&o.Etcd, "etcd", "", "etcd's address, for registration and to find podlink; empty: no etcd")
	flags.DurationVar(&o.TTL, "ttl", 15*time.Second, "lifetime of a report to podlink")
	flags.DurationVar(&o.Linger, "linger", 10*time.Second, "how long the pod keeps its rooms when it stops")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return pod.Run(context.Background(), o)
}
