package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// redialPause is the longest pause before podlink is dialed again, which may have been away.
const redialPause = time.Second

// dial returns a connection to podlink for the one of that name. It is plain gRPC, as podlink's client has no calls for operators.
func (d *demo) dial(name string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: redialPause / 10, Multiplier: 1.5, Jitter: .2, MaxDelay: redialPause},
		MinConnectTimeout: redialPause,
	})}
	if d.doors == nil {
		return grpc.NewClient(d.podlink, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	}
	secured, err := d.doors.tls(name)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(d.doors.path(name + ".token"))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(d.podlink, append(options,
		grpc.WithTransportCredentials(credentials.NewTLS(secured)), grpc.WithPerRPCCredentials(bearer(token)))...)
}

// tls is how the one of that name connects to podlink.
func (d doors) tls(name string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(d.path(name+".crt"), d.path(name+".key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(d.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("there is no certificate in ca.crt")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// bearer is a token that goes with each call.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }
