//go:build faults

package faults

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/internal/certs"
	"podlink/test/kit/calls"
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

// rotated is those files, which two CAs have issued one after the other.
type rotated struct {
	*tlstest.Rotation

	t *testing.T
}

// startRedis starts a Redis that requires certificates, and returns its address and a function that makes it read its files.
func (r *rotated) startRedis() (addr string, server *redistest.Server, reread func()) {
	r.t.Helper()
	port := proc.FreePorts(r.t, 1)[0]
	files := []string{
		"tls-ca-cert-file", r.Path("ca.crt"), "tls-cert-file", r.Path("redis.crt"), "tls-key-file", r.Path("redis.key"),
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
		"PODLINK_DATA_REDIS_TLS_ENABLED=true", "PODLINK_DATA_REDIS_TLS_CA_FILE="+r.Path("ca.crt"),
		"PODLINK_DATA_REDIS_TLS_CERT_FILE="+r.Path("podlink.crt"), "PODLINK_DATA_REDIS_TLS_KEY_FILE="+r.Path("podlink.key"),
		"PODLINK_DATA_REDIS_CONN_MAX_IDLE_TIME=1s", "PODLINK_DATA_REDIS_AUTO_PIPELINE=false", // New connections all the time.
		// A busy machine may take its time: a handshake that fails does so at once.
		"PODLINK_SERVER_GRPC_TIMEOUT=1m", "PODLINK_SERVER_HTTP_TIMEOUT=1m", "PODLINK_DATA_REDIS_DIAL_TIMEOUT=30s",
		"PODLINK_DATA_REDIS_POOL_TIMEOUT=30s", "PODLINK_DATA_REDIS_READ_TIMEOUT=30s", "PODLINK_DATA_REDIS_WRITE_TIMEOUT=30s",
	)
	for _, listener := range []string{"HTTP", "GRPC"} {
		prefix := "PODLINK_SERVER_" + listener + "_TLS_"
		env = append(env, prefix+"ENABLED=true", prefix+"CERT_FILE="+r.Path("server.crt"), prefix+"KEY_FILE="+r.Path("server.key"),
			prefix+"CLIENT_CA_FILE="+r.Path("ca.crt"), prefix+"CLIENT_AUTH=require")
	}
	return env
}

// TestRotation: no call fails while the certificates of podlink, Redis and the callers are replaced, first trust in a new CA, then all
// certificates at once, then the old CA; nor when all files are broken, which podlink says. There are 200 calls a second: half of
// them by podlink's client, and half over a connection of their own, which retries nothing.
func TestRotation(t *testing.T) {
	t.Parallel()
	r := &rotated{tlstest.NewRotation(t, rotatedFiles...), t}
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
	r.Trust(r.Old, r.Next)
	reread()
	await(": reloaded", "ca_file")
	time.Sleep(callersRead)
	r.Show(r.Next)
	reread()
	await(": reloaded", "cert_file")
	time.Sleep(callersRead)
	r.Trust(r.Next)
	reread()
	await(": reloaded", "ca_file")

	// What podlink and its callers read from now on is broken.
	for _, name := range append(rotatedFiles, "ca") {
		if name != "caller" && name != "redis" {
			tlstest.Copy(t, r.Path(name+".crt"), "/etc/hostname")
		}
	}
	await(": the files have changed and can't be used", "ca_file", "cert_file")
	made, failed := stop()
	require.Empty(t, failed, "of %d calls", made)
	require.Greater(t, made, 1000)
	t.Logf("%d calls, none failed", made)

	// Redis, which trusts the new CA alone by now, lets podlink in again.
	require.NoError(t, server.Client(t).Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err())
	p.WaitReady(t)
}

// load makes calls until the returned function is called, which returns their number and the errors.
func (r *rotated) load(p *podlinktest.Process) (stop func() (calls int, failed []error)) {
	t := r.t
	files := certstest.Start(t)
	own, err := files.Client(certs.ClientOptions{
		CA: certs.File{Path: r.Path("ca.crt")}, Cert: certs.File{Path: r.Path("caller.crt")}, Key: certs.File{Path: r.Path("caller.key")},
	})
	require.NoError(t, err)
	long, err := client.New(p.GRPC, client.Options{
		Timeout: rotationTimeout, CAFile: r.Path("ca.crt"), CertFile: r.Path("caller.crt"), KeyFile: r.Path("caller.key"),
	})
	require.NoError(t, err)
	overHTTP, err := client.New(p.HTTP, client.Options{
		HTTP: true, Timeout: rotationTimeout, CAFile: r.Path("ca.crt"), CertFile: r.Path("caller.crt"), KeyFile: r.Path("caller.key"),
	})
	require.NoError(t, err)
	carrier := own.Transport(&http.Transport{DisableKeepAlives: true})
	get := &v1.GetLinkedPodRequest{Namespace: namespace, Uid: "rotated", Service: "s"}
	set := &v1.SetLinkedPodRequest{Namespace: namespace, Uid: "rotated", Service: "s", PodId: proto.Int32(1)}
	end := calls.Repeat(20*time.Millisecond, rotationTimeout,
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
			return calls.Get(ctx, carrier, "https://"+p.HTTP+"/v1/namespaces/"+namespace+"/links/rotated/services/s", "")
		},
	)
	return func() (int, []error) {
		count, errs := end()
		carrier.CloseIdleConnections()
		require.NoError(t, long.Close())
		require.NoError(t, overHTTP.Close())
		return count, errs
	}
}
