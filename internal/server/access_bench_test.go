package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/auth"
	"podlink/internal/conf"
	"podlink/test/kit/logwatch"
)

const benchToken = "router-0123456789abcdef0123456789abcdef"

// realAccess is an access with podlink's own authenticator and policy, and the metrics.
func realAccess(tb testing.TB) *Access {
	tb.Helper()
	dir := tb.TempDir()
	tokens, rules := filepath.Join(dir, "tokens"), filepath.Join(dir, "policy")
	require.NoError(tb, os.WriteFile(tokens, fmt.Appendf(nil, "- {name: router, sha256: %x, not_after: 2099-01-01}\n",
		sha256.Sum256([]byte(benchToken))), 0o600))
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range 99 {
		fmt.Fprintf(&text, "- {who: [\"token:other-%d\"], role: reader, namespaces: [game], services: [room]}\n", i)
	}
	text.WriteString(`- {who: ["token:router", "dns:router.example"], role: caller, namespaces: [game], services: ["*"], rate: 999999}` + "\n")
	require.NoError(tb, os.WriteFile(rules, []byte(text.String()), 0o600))
	callers, err := auth.New(auth.Options{TokensFile: tokens, Certificates: true})
	require.NoError(tb, err)
	policy, err := auth.NewPolicy(auth.PolicyOptions{Path: rules})
	require.NoError(tb, err)
	return NewAccess(callers, policy, 1e6, NewDoorMetrics())
}

// verified is the state of a TLS connection with a client's certificate.
func verified(tb testing.TB) tls.ConnectionState {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"router.example"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(tb, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(tb, err)
	return tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
}

// doorways are the ways in: by mode and proof.
type doorway struct {
	access *Access
	header string
	tls    *tls.ConnectionState
}

func doorways(tb testing.TB) map[string]doorway {
	tb.Helper()
	state := verified(tb)
	return map[string]doorway{
		"off":   {},
		"token": {access: realAccess(tb), header: "Bearer " + benchToken},
		"mtls":  {access: realAccess(tb), tls: &state},
	}
}

// inChain returns parts whose chain has the access.
func (d doorway) inChain(tb testing.TB) parts {
	tb.Helper()
	p := newParts(tb)
	metrics, err := NewMetrics(nil)
	require.NoError(tb, err)
	chain, closeChain := NewChain(ChainOptions{
		Server: p.config, Log: conf.Default().Log, Access: d.access, Metrics: metrics, Logger: log.NewStdLogger(new(logwatch.Log)),
		Tracer: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())),
	})
	tb.Cleanup(closeChain)
	p.chain = chain
	return p
}

// aPeer is the peer of a connection.
func aPeer() *peerAddr {
	return &peerAddr{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}, from: netip.MustParseAddrPort("127.0.0.1:4711")}
}

// overGRPC returns a call of GetLinkedPod as gRPC makes it: its handler, with decoding, the chain and the use case.
func (d doorway) overGRPC(tb testing.TB) func() error {
	tb.Helper()
	p := d.inChain(tb)
	raw, err := proto.Marshal(aGet)
	require.NoError(tb, err)
	wire, decoder := mem.BufferSlice{mem.SliceBuffer(raw)}, codec{encoding.GetCodecV2(grpcproto.Name)}
	receive := func(target any) error { return decoder.Unmarshal(wire, target) }
	from := &peer.Peer{Addr: aPeer()}
	if d.tls != nil {
		from.AuthInfo = credentials.TLSInfo{State: *d.tls}
	}
	header := metadata.MD{"user-agent": {"grpc-go"}}
	if d.header != "" {
		header.Set("authorization", d.header)
	}
	ctx := peer.NewContext(metadata.NewIncomingContext(tb.Context(), header), from)
	intercept := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx = transport.NewServerContext(ctx, call{header: http.Header{}, reply: http.Header{}})
		return p.chain.Unary(func(ctx context.Context, request any) (any, error) { return next(ctx, request) })(ctx, request)
	}
	for _, method := range v1.LinkService_ServiceDesc.Methods {
		if method.MethodName == "GetLinkedPod" {
			handle := deferErrors(d.access, v1.OperationLinkServiceGetLinkedPod, method.Handler)
			return func() error {
				_, err := handle(p.links, ctx, receive, intercept)
				return err
			}
		}
	}
	return nil
}

// overHTTP returns the same call as net/http makes it.
func (d doorway) overHTTP(tb testing.TB) func() error {
	tb.Helper()
	handler := d.inChain(tb).http()
	ctx := context.WithValue(tb.Context(), peerAddrKey{}, aPeer()) // As withPeerAddr does.
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, linkPath, http.NoBody)
	request.TLS = d.tls
	if d.header != "" {
		request.Header.Set("Authorization", d.header)
	}
	reply := &sink{header: make(http.Header)}
	return func() error {
		r := *request
		handler.ServeHTTP(reply, &r)
		if reply.code != 0 && reply.code != http.StatusOK {
			return fmt.Errorf("answered %d", reply.code)
		}
		return nil
	}
}

// BenchmarkDoors is a call with auth.mode off, and with a caller that a token, known already, or a certificate proves.
func BenchmarkDoors(b *testing.B) {
	for _, name := range []string{"off", "token", "mtls"} {
		for kind, of := range map[string]func(doorway, testing.TB) func() error{"gRPC": doorway.overGRPC, "HTTP": doorway.overHTTP} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				do := of(doorways(b)[name], b)
				for b.Loop() {
					if err := do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestDoorsAllocateTwice: who calls costs two allocations a call at most, whatever proves it.
func TestDoorsAllocateTwice(t *testing.T) {
	for kind, of := range map[string]func(doorway, testing.TB) func() error{"gRPC": doorway.overGRPC, "HTTP": doorway.overHTTP} {
		allocated := make(map[string]float64)
		for name, way := range doorways(t) {
			do := of(way, t)
			require.NoError(t, do())
			allocated[name] = testing.AllocsPerRun(200, func() { _ = do() })
		}
		t.Log(kind, allocated)
		require.LessOrEqual(t, allocated["token"], allocated["off"]+2, kind)
		require.LessOrEqual(t, allocated["mtls"], allocated["off"]+2, kind)
	}
}
