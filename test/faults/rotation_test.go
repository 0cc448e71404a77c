//go:build faults

package faults

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/internal/certs"
	certstest "podlink/test/kit/certs"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
	tlstest "podlink/test/kit/tls"
)

// rotationTimeout bounds how long podlink takes to read new files: it does every 10 s, and twice before it reports that they are
// broken.
const rotationTimeout = time.Minute

// callersRead is how long podlink's client takes to read new files.
const callersRead = certs.DefaultInterval + time.Second

// rotatedFiles are those of podlink's listeners and its client of Redis, of Redis, and of the callers, in one folder.
var rotatedFiles = []string{"server", "redis", "podlink", "caller"}

// rotated is a folder of files that two CAs have issued one after the other.
type rotated struct {
	t         *testing.T
	dir       string
	old, next *tlstest.Authority
}

func newRotated(t *testing.T) *rotated {
	t.Helper()
	r := &rotated{t: t, dir: t.TempDir(), old: tlstest.New(t, t.TempDir(), "ca"), next: tlstest.New(t, t.TempDir(), "ca")}
	for _, ca := range []*tlstest.Authority{r.old, r.next} {
		for _, name := range rotatedFiles {
			ca.Issue(t, name, &x509.Certificate{
				DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			})
		}
	}
	r.trust(r.old)
	r.show(r.old)
	return r
}

func (r *rotated) path(file string) string { return filepath.Join(r.dir, file) }

// trust makes all sides trust these CAs.
func (r *rotated) trust(all ...*tlstest.Authority) {
	var files []string
	for _, ca := range all {
		files = append(files, ca.Path("ca.crt"))
	}
	tlstest.Copy(r.t, r.path("ca.crt"), files...)
}

// show makes all sides show the certificates of the CA.
func (r *rotated) show(ca *tlstest.Authority) {
	for _, name := range rotatedFiles {
		tlstest.Copy(r.t, r.path(name+".crt"), ca.Path(name+".crt"))
		tlstest.Copy(r.t, r.path(name+".key"), ca.Path(name+".key"))
	}
}

// startRedis starts a Redis that requires certificates, and returns its address and a function that makes it read its files.
func (r *rotated) startRedis() (addr string, server *redistest.Server, reread func()) {
	r.t.Helper()
	port := proc.FreePorts(r.t, 1)[0]
	files := []string{
		"tls-ca-cert-file", r.path("ca.crt"), "tls-cert-file", r.path("redis.crt"), "tls-key-file", r.path("redis.key"),
	}
	args := []string{"--tls-port", strconv.Itoa(port)}
	command := []any{"config", "set"}
	for i, word := range files {
		command = append(command, word)
		args = append(args, map[bool]string{true: "--"}[i%2 == 0]+word)
	}
	server = redistest.Start(r.t, args...)
	admin := server.Client(r.t)
	return proc.Addr(port), server, func() {
		require.NoError(r.t, admin.Do(context.Background(), command...).Err())
	}
}

// environment is that of a podlink with the files on all of its sides.
func (r *rotated) environment(redis string) []string {
	env := append(podlinktest.OnRedis("standalone", redis),
		"PODLINK_DATA_REDIS_TLS_ENABLED=true", "PODLINK_DATA_REDIS_TLS_CA_FILE="+r.path("ca.crt"),
		"PODLINK_DATA_REDIS_TLS_CERT_FILE="+r.path("podlink.crt"), "PODLINK_DATA_REDIS_TLS_KEY_FILE="+r.path("podlink.key"),
		"PODLINK_DATA_REDIS_CONN_MAX_IDLE_TIME=1s", "PODLINK_DATA_REDIS_AUTO_PIPELINE=false", // New connections all the time.
		// A busy machine may take its time: a handshake that fails does so at once.
		"PODLINK_SERVER_GRPC_TIMEOUT=1m", "PODLINK_SERVER_HTTP_TIMEOUT=1m", "PODLINK_DATA_REDIS_DIAL_TIMEOUT=30s",
		"PODLINK_DATA_REDIS_POOL_TIMEOUT=30s", "PODLINK_DATA_REDIS_READ_TIMEOUT=30s", "PODLINK_DATA_REDIS_WRITE_TIMEOUT=30s",
	)
	for _, listener := range []string{"HTTP", "GRPC"} {
		prefix := "PODLINK_SERVER_" + listener + "_TLS_"
		env = append(env, prefix+"ENABLED=true", prefix+"CERT_FILE="+r.path("server.crt"), prefix+"KEY_FILE="+r.path("server.key"),
			prefix+"CLIENT_CA_FILE="+r.path("ca.crt"), prefix+"CLIENT_AUTH=require")
	}
	return env
}

// TestRotation: no call fails while the certificates of podlink, Redis and the callers are replaced, first trust in a new CA, then all
// certificates at once, then the old CA; nor when all files are broken, which podlink says. There are 200 calls a second: half of
// them by podlink's client, and half over a connection of their own, which retries nothing.
func TestRotation(t *testing.T) {
	t.Parallel()
	r := newRotated(t)
	redis, server, reread := r.startRedis()
	p := start(t, binary, 1, r.environment(redis)...)[0]
	stop := r.load(p)
	keys := []string{"server.http.tls.%s", "server.grpc.tls.%s", "data.redis.tls.%s"}
	reloaded := make(map[string]int)
	await := func(line string, files ...string) {
		t.Helper()
		for _, file := range files {
			for _, key := range keys {
				text := fmt.Sprintf(key, file) + line
				if key != keys[2] {
					text = strings.Replace(text, ".ca_file", ".client_ca_file", 1)
				}
				reloaded[text]++
				require.Eventually(t, func() bool { return strings.Count(p.Log.String(), text) >= reloaded[text] },
					rotationTimeout, 50*time.Millisecond, "%s %d\n%s", text, reloaded[text], p.Log)
			}
		}
		time.Sleep(2 * time.Second) // Some calls with these files.
	}
	r.trust(r.old, r.next)
	reread()
	await(": reloaded", "ca_file")
	time.Sleep(callersRead)
	r.show(r.next)
	reread()
	await(": reloaded", "cert_file")
	time.Sleep(callersRead)
	r.trust(r.next)
	reread()
	await(": reloaded", "ca_file")

	// What podlink and its callers read from now on is broken.
	for _, name := range append(rotatedFiles, "ca") {
		if name != "caller" && name != "redis" {
			tlstest.Copy(t, r.path(name+".crt"), "/etc/hostname")
		}
	}
	await(": the files have changed and can't be used", "ca_file", "cert_file")
	calls, failed := stop()
	require.Empty(t, failed, "of %d calls", calls)
	require.Greater(t, calls, 1000)
	t.Logf("%d calls, none failed", calls)

	// Redis, which trusts the new CA alone by now, lets podlink in again.
	require.NoError(t, server.Client(t).Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err())
	p.WaitReady(t)
}

// load makes calls until the returned function is called, which returns their number and the errors.
func (r *rotated) load(p *podlinktest.Process) (stop func() (calls int, failed []error)) {
	t := r.t
	files := certstest.Start(t)
	own, err := files.Client(certs.ClientOptions{
		CA: certs.File{Path: r.path("ca.crt")}, Cert: certs.File{Path: r.path("caller.crt")}, Key: certs.File{Path: r.path("caller.key")},
	})
	require.NoError(t, err)
	long, err := client.New(p.GRPC, client.Options{
		Timeout: rotationTimeout, CAFile: r.path("ca.crt"), CertFile: r.path("caller.crt"), KeyFile: r.path("caller.key"),
	})
	require.NoError(t, err)
	overHTTP, err := client.New(p.HTTP, client.Options{
		HTTP: true, Timeout: rotationTimeout, CAFile: r.path("ca.crt"), CertFile: r.path("caller.crt"), KeyFile: r.path("caller.key"),
	})
	require.NoError(t, err)
	carrier := own.Transport(&http.Transport{DisableKeepAlives: true})
	get := &v1.GetLinkedPodRequest{Namespace: namespace, Uid: "rotated", Service: "s"}
	set := &v1.SetLinkedPodRequest{Namespace: namespace, Uid: "rotated", Service: "s", PodId: proto.Int32(1)}
	callers := []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := long.SetLinkedPod(ctx, set); return err },
		func(ctx context.Context) error { _, err := overHTTP.GetLinkedPod(ctx, get); return err },
		func(ctx context.Context) error {
			conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(own.Credentials()), grpc.WithDisableRetry())
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = v1.NewLinkServiceClient(conn).SetLinkedPod(ctx, set)
			return err
		},
		func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet,
				"https://"+p.HTTP+"/v1/namespaces/"+namespace+"/links/rotated/services/s", http.NoBody)
			if err != nil {
				return err
			}
			response, err := carrier.RoundTrip(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err == nil && response.StatusCode != http.StatusOK {
				err = fmt.Errorf("%d %s", response.StatusCode, text)
			}
			return err
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var (
		done  sync.WaitGroup
		count atomic.Int64
		mu    sync.Mutex
		errs  []error
	)
	for _, call := range callers {
		done.Go(func() {
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				bounded, end := context.WithTimeout(context.Background(), rotationTimeout)
				if err := call(bounded); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
					mu.Unlock()
				}
				end()
				count.Add(1)
				<-ticker.C
			}
		})
	}
	return func() (int, []error) {
		cancel()
		done.Wait()
		carrier.CloseIdleConnections()
		require.NoError(t, long.Close())
		require.NoError(t, overHTTP.Close())
		return int(count.Load()), errs
	}
}
