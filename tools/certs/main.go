// Command certs writes a certificate authority and certificates for trying podlink with TLS. They are not for production: the key of
// the authority lies beside them.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

const usage = `certs writes a CA and certificates for trying podlink with TLS, in PEM.

Usage: certs [-dir DIR] [-names NAME,...] [-callers NAME,...] [-pods N] [-new-ca]

  -dir DIR      folder to write to (default bin/certs)
  -names NAMES  more names and IP addresses of the server, besides podlink, localhost, 127.0.0.1 and ::1
  -callers NAMES  more callers: NAME.crt and NAME.key for spiffe://podlink.dev/NAME
  -pods N       number of pods (default 3): chat-0, chat-1 ...
  -new-ca       replace the CA; else the one in the folder signs

  ca.crt, ca.key          the CA, for two years
  server.crt, server.key  podlink, and the other certificates, for 90 days
  operator.*, caller.*    callers: spiffe://podlink.dev/operator and spiffe://podlink.dev/caller
  chat-0.* ...            pods: spiffe://podlink.dev/pod/chat-0 ...

Run it again for new certificates of the same CA: podlink reads them within 10 seconds. Whoever reads ca.key can call podlink as
anyone.
`

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code.
func run(args []string) int {
	flags := flag.NewFlagSet("certs", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	dir := flags.String("dir", "bin/certs", "")
	names := flags.String("names", "", "")
	callers := flags.String("callers", "", "")
	pods := flags.Int("pods", 3, "")
	newCA := flags.Bool("new-ca", false, "")
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // It is never wrapped.
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 || *pods < 0 || *pods > 1000 {
		fmt.Fprintln(os.Stderr, "certs: unexpected argument; -help prints the usage")
		return 2
	}
	split := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if err := write(*dir, split(*names), split(*callers), *pods, *newCA); err != nil {
		fmt.Fprintf(os.Stderr, "certs: %v\n", err)
		return 1
	}
	return 0
}
