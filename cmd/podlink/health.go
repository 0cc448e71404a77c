package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"podlink/internal/conf"
)

const (
	// healthTimeout bounds -health. podlink answers at once.
	healthTimeout = 2 * time.Second
	// maxHealthBytes bounds the reply that is read.
	maxHealthBytes = 64 << 10
)

// askHealth asks the podlink with that admin listener if it is ready, prints the answer in a line, and returns the exit code: 0 when
// it is ready, else 1.
func askHealth(admin *conf.Server_Admin) int {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	status, err := readiness(ctx, admin)
	if err != nil {
		fmt.Printf("not ready: %v\n", err)
		return 1
	}
	fmt.Println(status)
	return 0
}

// readiness returns the status of a ready podlink, and an error for any other.
func readiness(ctx context.Context, admin *conf.Server_Admin) (string, error) {
	target, err := reachable(admin.GetAddr())
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true} // And no proxy: podlink is on this machine.
	scheme := "http"
	if admin.GetTls().GetEnabled() {
		scheme = "https"
		if transport.TLSClientConfig, err = ownTLS(admin.GetTls()); err != nil {
			return "", err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+target+"/readyz", nil)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return "", fmt.Errorf("no answer from %s (server.admin.addr) within %s", target, healthTimeout)
		case errors.Is(err, syscall.ECONNREFUSED):
			return "", fmt.Errorf("no podlink answers at %s (server.admin.addr)", target)
		case admin.GetTls().GetClientAuth() == conf.ClientAuthRequire:
			return "", fmt.Errorf("%w; server.admin.tls.client_auth optional lets probes without a certificate in", err)
		}
		return "", err
	}
	defer response.Body.Close()
	var body struct{ Status, Reason string }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxHealthBytes)).Decode(&body); err != nil || body.Status == "" {
		return "", fmt.Errorf("%s is not podlink's admin listener, it answers %d", target, response.StatusCode)
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(body.Reason)
	}
	return body.Status, nil
}

// ownTLS returns the TLS configuration for the podlink on this machine. As the probes of Kubernetes, it does not verify podlink's
// certificate, which has not the name of this machine; it asks for nothing secret. It shows that certificate where the listener
// wants one.
func ownTLS(c *conf.ServerTLS) (*tls.Config, error) {
	own, err := (&conf.TLS{Enabled: true, CertFile: c.GetCertFile(), KeyFile: c.GetKeyFile()}).Config("server.admin.tls", nil)
	if err != nil {
		return nil, err
	}
	config := own.Config()
	config.InsecureSkipVerify = true
	return config, nil
}

// reachable returns an address that reaches a listener on addr from this machine.
func reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", errors.New("the port of server.admin.addr is 0, so it is different in each run and not known")
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6unspecified):
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}
