package conf

import (
	"crypto/tls"

	"podlink/internal/certs"
)

func defaultServerTLS() *ServerTLS { return &ServerTLS{ClientAuth: ClientAuthNone, MinVersion: "1.3"} }

// checkFiles returns an error if a file of a TLS section can't be used.
func (b *Bootstrap) checkFiles() error {
	clients := map[string]*TLS{
		"data.redis.tls": b.GetData().GetRedis().GetTls(), "trace.tls": b.GetTrace().GetTls(), "registry.tls": b.GetRegistry().GetTls(),
	}
	for _, path := range sortedKeys(clients) {
		if _, err := clients[path].Config(path, nil); err != nil {
			return err
		}
	}
	listeners := b.GetServer().ListenerTLS()
	for _, path := range sortedKeys(listeners) {
		if _, err := listeners[path].Config(path, nil); err != nil {
			return err
		}
	}
	return nil
}

// Config returns the TLS configuration of a client, nil for plaintext. The files keeps it up to date; nil: they are read once. path is
// the section's YAML path, for errors, the log and metrics.
func (x *TLS) Config(path string, files *certs.Reloader) (*certs.Client, error) {
	if !x.GetEnabled() {
		return nil, nil //nolint:nilnil // Clients take nil for plaintext.
	}
	return files.Client(certs.ClientOptions{
		CA:         certs.File{Key: path + ".ca_file", Path: x.GetCaFile()},
		Cert:       certs.File{Key: path + ".cert_file", Path: x.GetCertFile()},
		Key:        certs.File{Key: path + ".key_file", Path: x.GetKeyFile()},
		ServerName: x.GetServerName(),
	})
}

// Config returns the TLS configuration of a listener for the protocols over it, nil for plaintext. files and path are as for a client.
func (x *ServerTLS) Config(path string, files *certs.Reloader, protocols ...string) (*tls.Config, error) {
	if !x.GetEnabled() {
		return nil, nil //nolint:nilnil // Servers take nil for plaintext.
	}
	return files.Server(certs.ServerOptions{
		Cert:       certs.File{Key: path + ".cert_file", Path: x.GetCertFile()},
		Key:        certs.File{Key: path + ".key_file", Path: x.GetKeyFile()},
		ClientCA:   certs.File{Key: path + ".client_ca_file", Path: x.GetClientCaFile()},
		ClientAuth: clientAuth[x.GetClientAuth()],
		MinVersion: versions[x.GetMinVersion()],
		NextProtos: protocols,
	})
}

// clientAuth and versions have the values that Validate accepts.
var (
	clientAuth = map[string]tls.ClientAuthType{
		ClientAuthNone: tls.NoClientCert, ClientAuthOptional: tls.VerifyClientCertIfGiven, ClientAuthRequire: tls.RequireAndVerifyClientCert,
	}
	versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
)

func (v *violations) tls(path string, c *TLS) {
	if (c.GetCertFile() == "") != (c.GetKeyFile() == "") {
		v.add(path, "must have both cert_file and key_file, or neither")
	} else if !c.GetEnabled() && c.GetCaFile()+c.GetCertFile()+c.GetServerName() != "" {
		v.add(path+".enabled", "must be true when another key of %s is set, or the connection is in plaintext", path)
	}
}
