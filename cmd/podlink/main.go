// Command podlink remembers which pod of a stateful service holds which user.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"podlink/internal/app"
	"podlink/internal/conf"
	"podlink/internal/version"
)

const usage = `podlink remembers which pod of a stateful service holds which user.

Usage: podlink [-conf PATH] [-check | -health | -version]

  -conf PATH  configuration: a YAML file or a folder of them (default: built-in defaults)
  -check      print the configuration in force, with secrets masked, and exit
  -health     ask the podlink that runs with this configuration if it is ready, and exit: 0 if it is, else 1
  -version    print the version and exit
  -help       print this text and exit

Environment variables override every key: PODLINK_DATA_REDIS_PASSWORD is data.redis.password, and
PODLINK_DATA_REDIS_PASSWORD_FILE is a file that holds it.
`

func main() {
	// Without this, a write to a closed standard output or error would end the process.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Args[1:]))
}

// run returns the exit code: 0 after a stop signal, 2 for an invalid flag or configuration, 1 for any later failure.
func run(args []string) int {
	flags := flag.NewFlagSet("podlink", flag.ContinueOnError)
	path := flags.String("conf", "", "")
	check := flags.Bool("check", false, "")
	health := flags.Bool("health", false, "")
	showVersion := flags.Bool("version", false, "")
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
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
	if n := count(*check, *health, *showVersion); n > 1 {
		fmt.Fprintln(os.Stderr, "podlink: only one of -check, -health and -version can be used")
		return 2
	}
	if *showVersion {
		fmt.Printf("podlink %s %s %s/%s\n", version.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	config, err := conf.Load(*path, os.Environ())
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		if *health {
			return 1 // Docker knows 0 and 1 only.
		}
		return 2
	case *check:
		return printConfig(config)
	case *health:
		return askHealth(config.GetServer().GetAdmin())
	default:
		return serve(config)
	}
}

func count(all ...bool) (n int) {
	for _, set := range all {
		if set {
			n++
		}
	}
	return n
}

func printConfig(config *conf.Bootstrap) int {
	warnings, err := app.Check(config)
	if err != nil {
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		return 2
	}
	for _, warning := range warnings {
		fmt.Fprintf(os.Stderr, "podlink: warning: %s\n", warning)
	}
	text, err := config.YAML()
	if err != nil {
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		return 1
	}
	fmt.Print(text)
	return 0
}
