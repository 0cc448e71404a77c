package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	khttp "github.com/go-kratos/kratos/v2/transport/http"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
)

// ownOrigin refuses requests that a browser sends for a web page of another origin. Such a page reaches listeners that the network
// does not: those on the loopback of the machine that shows it. A page can also make the browser take it for a page of podlink,
// by a name that it resolves to 127.0.0.1 (DNS rebinding): on loopback only known names are served.
type ownOrigin struct {
	key      string          // YAML path of hosts, for the error
	hosts    map[string]bool // nil: the listener is not on loopback, and may have any name
	crossing *http.CrossOriginProtection
	doors    *DoorMetrics
}

// newOwnOrigin returns the ownOrigin of the listener at addr, which has the names in hosts too.
func newOwnOrigin(key, addr string, hosts []string, doors *DoorMetrics) *ownOrigin {
	o := &ownOrigin{key: key, crossing: http.NewCrossOriginProtection(), doors: doors}
	if conf.Loopback(addr) {
		o.hosts = map[string]bool{"localhost": true}
		for _, host := range hosts {
			o.hosts[strings.ToLower(host)] = true
		}
	}
	return o
}

// check returns why a request is refused.
func (o *ownOrigin) check(r *http.Request) error {
	if o.hosts != nil && !o.hasName(r.Host) {
		o.doors.Refused(RefusedByHost)
		return v1.ErrorPermissionDenied("the Host of the request is not a name of this listener, which is on loopback; %s adds names", o.key)
	}
	if o.crossing.Check(r) != nil {
		o.doors.Refused(RefusedByOrigin)
		return v1.ErrorPermissionDenied("the request is from a web page of another origin")
	}
	return nil
}

// hasName reports whether a Host header, with or without a port, names the listener. Without one it is HTTP/1.0, which no browser
// speaks.
func (o *ownOrigin) hasName(header string) bool {
	if header == "" {
		return true
	}
	host := header
	if name, _, err := net.SplitHostPort(header); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if o.hosts[host] {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// filter applies check to an API.
func (o *ownOrigin) filter(reject rejectFunc) khttp.FilterFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := o.check(r); err != nil {
				reject(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// checkStrictly is check for a route of operators. There even a GET has an effect: taking a profile costs CPU time.
func (o *ownOrigin) checkStrictly(r *http.Request) error {
	changing := *r
	changing.Method = http.MethodPost
	return o.check(&changing)
}
