// Command chat is a chat whose rooms live in the memory of pods, and a demo of it on one machine: see its README.
//
// Usage:
//
//	chat demo [flags]   run it all: podlink, three pods, a caller, and what happens to pods
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
	flags.IntVar(&o.Rooms, "rooms", 1000, "how many rooms talk")
	flags.DurationVar(&o.Every, "every", 2*time.Second, "between two messages of a room")
	flags.DurationVar(&o.TTL, "ttl", 3*time.Second, "how long a pod's report to podlink counts")
	flags.DurationVar(&o.Linger, "linger", 2*time.Second, "how long a pod that stops keeps its rooms")
	flags.DurationVar(&o.Steady, "steady", 6*time.Second, "how long nothing happens at first")
	flags.BoolVar(&o.Static, "static", false, "use a static list of pods, also if there is an etcd")
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
	flags.StringVar(&o.Name, "name", "", "the pod's name, as in chat-2; empty: POD_NAME, or the host name")
	flags.StringVar(&o.Addr, "addr", "127.0.0.1:0", "where it listens")
	flags.StringVar(&o.Store, "store", "", "the store of the rooms")
	flags.StringVar(&o.Podlink, "podlink", "127.0.0.1:9000", "podlink's gRPC address, where there is no etcd")
	flags.StringVar(&o.Etcd, "etcd", "", "where it registers itself and finds podlink; empty: nowhere")
	flags.DurationVar(&o.TTL, "ttl", 15*time.Second, "how long a report to podlink counts")
	flags.DurationVar(&o.Linger, "linger", 10*time.Second, "how long it keeps its rooms when it stops")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return pod.Run(context.Background(), o)
}
