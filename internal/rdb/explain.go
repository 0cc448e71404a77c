package rdb

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// explain adds to the error of a check which setting is likely wrong. It adds no secret.
func (o Options) explain(err error) error {
	if err == nil {
		return nil
	}
	if advice := o.advice(err); advice != "" {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}

// advice returns the likely cause of the error and its setting, "" if there is no better guess than the error's text.
func (o Options) advice(err error) string {
	text := err.Error()
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	var timeout net.Error
	timedOut := errors.As(err, &timeout) && timeout.Timeout() || has("deadline exceeded", "i/o timeout", "timed out")
	ended := errors.Is(err, io.EOF) || has("EOF", "connection reset", "broken pipe", "can't parse", "invalid reply")
	switch {
	case has("WRONGPASS", "NOAUTH", "invalid username-password", "invalid password", "called without any password"):
		if o.Mode == Sentinel {
			return "check data.redis.username and data.redis.password, and data.redis.sentinel_password for the sentinels"
		}
		return "check data.redis.username and data.redis.password"
	case has("certificate required", "bad certificate"):
		return "redis wants a client certificate: data.redis.tls.cert_file and key_file"
	case has("x509:"):
		return "check data.redis.tls.ca_file and data.redis.tls.server_name"
	case o.TLS != nil && (ended || timedOut || has("does not look like a TLS handshake")):
		advice := "if redis does not use TLS on this port, data.redis.tls.enabled must be false"
		if len(o.TLS().Certificates) == 0 { // The reset of the connection may overtake the server's reason.
			advice += ", and if it wants a client certificate, data.redis.tls.cert_file must be set"
		}
		return advice
	case o.TLS == nil && !o.Embedded && ended:
		return "if redis uses TLS on this port, data.redis.tls.enabled must be true"
	default:
		return ""
	}
}

// warnings logs each text once.
type warnings struct {
	log Logger

	mu     sync.Mutex
	logged map[string]bool
}

func newWarnings(log Logger) *warnings { return &warnings{log: log, logged: make(map[string]bool)} }

func (w *warnings) warn(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.logged[text] {
		w.logged[text] = true
		w.log.Warnf("%s", text)
	}
}
