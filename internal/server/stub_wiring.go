package server

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

func rateLimited(wait time.Duration, format string, args ...any) *kerrors.Error {
	ms := max(1, (wait+time.Millisecond-1)/time.Millisecond)
	return v1.ErrorRateLimited(format, args...).WithMetadata(map[string]string{"retry_after_ms": strconv.Itoa(int(ms))})
}

func addrPort(a net.Addr) netip.AddrPort {
	p, _ := netip.ParseAddrPort(a.String())
	return p
}
