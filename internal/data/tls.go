package data

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"podlink/internal/conf"
)

// tlsConfig returns what the connections to Redis are secured with, nil for plaintext. The files are read once, at the
// start.
func tlsConfig(c *conf.Data_TLS) (*tls.Config, error) {
	if !c.GetEnabled() {
		return nil, nil //nolint:nilnil // The driver takes nil for plaintext.
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.GetServerName()}
	if file := c.GetCaFile(); file != "" {
		text, err := os.ReadFile(file) //nolint:gosec // The operator names it.
		if err != nil {
			return nil, fmt.Errorf("data.redis.tls.ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("data.redis.tls.ca_file: it has no certificate in PEM")
		}
	}
	if c.GetCertFile() != "" {
		certificate, err := tls.LoadX509KeyPair(c.GetCertFile(), c.GetKeyFile())
		if err != nil {
			return nil, fmt.Errorf("data.redis.tls.cert_file, key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}
