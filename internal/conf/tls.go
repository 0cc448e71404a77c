package conf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// checkFiles returns an error if a file of a TLS section can't be used.
func (b *Bootstrap) checkFiles() error {
	sections := map[string]*TLS{
		"data.redis.tls": b.GetData().GetRedis().GetTls(), "trace.tls": b.GetTrace().GetTls(), "registry.tls": b.GetRegistry().GetTls(),
	}
	for _, path := range sortedKeys(sections) {
		if _, err := sections[path].Config(path); err != nil {
			return err
		}
	}
	return nil
}

// Config returns the TLS configuration, nil for plaintext. It reads the files once, now. path is the section's YAML path, for
// errors.
func (x *TLS) Config(path string) (*tls.Config, error) {
	if !x.GetEnabled() {
		return nil, nil //nolint:nilnil // Clients take nil for plaintext.
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: x.GetServerName()}
	if file := x.GetCaFile(); file != "" {
		text, err := readFile(file, maxFileBytes)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", path, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s.ca_file: no PEM certificate in the file", path)
		}
	}
	if x.GetCertFile() == "" {
		return config, nil
	}
	public, err := readFile(x.GetCertFile(), maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("%s.cert_file: %w", path, err)
	}
	private, err := readFile(x.GetKeyFile(), maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("%s.key_file: %w", path, err)
	}
	certificate, err := tls.X509KeyPair(public, private)
	if err != nil {
		return nil, fmt.Errorf("%s.cert_file, key_file: %w", path, err)
	}
	config.Certificates = []tls.Certificate{certificate}
	return config, nil
}
