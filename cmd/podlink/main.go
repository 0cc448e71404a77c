// Command podlink remembers which pod of a stateful service holds which user.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"

	"podlink/internal/app"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/internal/version"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run returns the exit code: 0 after a stop signal, 2 for an invalid flag or configuration, 1 for any later failure.
func run(args []string) int {
	flags := flag.NewFlagSet("podlink", flag.ContinueOnError)
	path := flags.String("conf", "", "configuration: a YAML `file` or a folder of them (default: built-in defaults)")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "podlink remembers which pod of a stateful service holds which user.\n\n"+
			"Usage: podlink [-conf PATH] [-version]\n\n")
		flags.PrintDefaults()
		fmt.Fprintf(flags.Output(), "\nEnvironment variables override every key: %sDATA_REDIS_PASSWORD is data.redis.password.\n",
			conf.EnvPrefix)
	}
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // It is never wrapped.
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "podlink: unexpected argument %q; use -conf for the configuration\n", flags.Arg(0))
		return 2
	}
	if *showVersion {
		fmt.Printf("podlink %s %s %s/%s\n", version.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	config, err := conf.Load(*path, os.LookupEnv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		return 2
	}
	level := telemetry.NewLogLevel(config.GetLog().GetLevel())
	logger := log.With(telemetry.NewLogger(config.GetLog(), level, os.Stderr), "trace_id", tracing.TraceID())
	log.SetLogger(logger)
	if err := serve(config, level, logger); err != nil {
		log.Errorf("podlink failed: %v", err)
		return 1
	}
	return 0
}

// ballastBytes is the size of a heap ballast: allocated but never touched, so it takes no physical memory. podlink's live heap is
// tiny, and without ballast the garbage collector runs every few megabytes, which costs a tenth of a call's CPU time
// (docs/performance.md).
const ballastBytes = 16 << 20

func serve(config *conf.Bootstrap, level *telemetry.LogLevel, logger log.Logger) error {
	podlink, cleanup, err := app.New(config, level, logger)
	if err != nil {
		return err
	}
	defer cleanup()
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	return podlink.Run()
}
