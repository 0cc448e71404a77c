package attacks

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// The variables of the attacker's process: the attack, and where podlink listens.
const (
	attackVariable = "PODLINK_TEST_ATTACK"
	grpcVariable   = "PODLINK_TEST_ATTACK_GRPC"
	httpVariable   = "PODLINK_TEST_ATTACK_HTTP"
	adminVariable  = "PODLINK_TEST_ATTACK_ADMIN"
)

// attacker is what an attack has: podlink's addresses, and counts of what it did.
type attacker struct {
	grpc, http, admin string

	tried, refused atomic.Int64
}

// attacks are the attacks by name. Each lasts until its context ends.
var attacks = map[string]func(a *attacker, ctx context.Context){
	"half-open streams":     (*attacker).halfOpenStreams,
	"rapid reset":           (*attacker).rapidReset,
	"connections":           (*attacker).connections,
	"slow headers":          (*attacker).slowHeaders,
	"scrapes":               (*attacker).scrapes,
	"profiles":              (*attacker).profiles,
	"forced traces":         (*attacker).forcedTraces,
	"far deadlines":         (*attacker).farDeadlines,
	"idle streams, slow":    (*attacker).slowStreams,
	"requests by web pages": (*attacker).webPages,
	"watches":               (*attacker).watches,
}

// runAttack is the attacker's process. It attacks until it is killed, and prints what it has done ten times a second.
func runAttack(name string) int {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 15); err != nil {
		fmt.Println(err)
		return 1
	}
	a := &attacker{grpc: os.Getenv(grpcVariable), http: os.Getenv(httpVariable), admin: os.Getenv(adminVariable)}
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			if a.tried.Load() > 0 {
				fmt.Printf("attacking tried=%d refused=%d\n", a.tried.Load(), a.refused.Load())
			}
		}
	}()
	attacks[name](a, context.Background())
	return 0
}

// many runs n of an attack at once, each again and again.
func many(ctx context.Context, n int, attack func(context.Context)) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				attack(ctx)
			}
		})
	}
	all.Wait()
}

// dial connects from the attacker's address. On failure, as when too many sockets are in use, it waits.
func (a *attacker) dial(ctx context.Context, addr string) (net.Conn, bool) {
	conn, err := from(attackerAddress).DialContext(ctx, "tcp", addr)
	if err != nil {
		time.Sleep(10 * time.Millisecond)
	}
	return conn, err == nil
}

// rawGRPC is a connection that sends frames of HTTP/2 without the manners of a client.
type rawGRPC struct {
	net.Conn

	out    *bufio.Writer
	frames *http2.Framer
	fields *hpack.Encoder
	block  bytes.Buffer
	next   uint32 // stream
}

func (a *attacker) rawGRPC(ctx context.Context) (*rawGRPC, bool) {
	conn, ok := a.dial(ctx, a.grpc)
	if !ok {
		return nil, false
	}
	r := &rawGRPC{Conn: conn, out: bufio.NewWriterSize(conn, 64<<10), next: 1}
	r.frames = http2.NewFramer(r.out, conn)
	r.fields = hpack.NewEncoder(&r.block)
	_, _ = io.WriteString(r.out, http2.ClientPreface)
	_ = r.frames.WriteSettings()
	_ = r.out.Flush()
	go func() {
		for {
			frame, err := r.frames.ReadFrame()
			if err != nil {
				_ = conn.Close()
				return
			}
			if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.ErrCode == http2.ErrCodeRefusedStream {
				a.refused.Add(1)
			}
			if _, ok := frame.(*http2.HeadersFrame); ok { // An answer: the attacks wait for none.
				a.refused.Add(1)
			}
		}
	}()
	return r, true
}

const getLink = "/podlink.v1.LinkService/GetLinkedPod"

// begin sends the headers of a call, and returns the id of its stream.
func (r *rawGRPC) begin(method string, more ...hpack.HeaderField) (uint32, error) {
	id := r.next
	r.next += 2
	r.block.Reset()
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: method},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = r.fields.WriteField(field)
	}
	return id, r.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true})
}

// halfOpenStreams begins 250,000 calls on one connection and 1,500 on 60 others, whose messages never come.
func (a *attacker) halfOpenStreams(ctx context.Context) {
	for _, calls := range slices.Concat([]int{250_000}, slices.Repeat([]int{1_500}, 60)) {
		r, ok := a.rawGRPC(ctx)
		for i := 0; ok && i < calls; i++ {
			_, err := r.begin(getLink)
			ok = err == nil
			a.tried.Add(1)
		}
		if ok {
			_ = r.out.Flush()
		}
	}
	<-ctx.Done()
}

// slowStreams begins calls on many connections, more slowly than any bound of a rate, and never sends their messages.
func (a *attacker) slowStreams(ctx context.Context) {
	many(ctx, 40, func(ctx context.Context) {
		r, ok := a.rawGRPC(ctx)
		for ; ok; time.Sleep(2 * time.Millisecond) {
			_, err := r.begin(getLink)
			ok = err == nil && r.out.Flush() == nil
			a.tried.Add(1)
		}
	})
}

// watches opens watches without end on many connections, half of them of one service and half of a new one each, and keeps them.
func (a *attacker) watches(ctx context.Context) {
	many(ctx, 8, func(ctx context.Context) {
		r, ok := a.rawGRPC(ctx)
		for i := 0; ok; i++ {
			service := "room"
			if i%2 == 0 {
				service = fmt.Sprintf("room-%d", a.tried.Load())
			}
			message, _ := proto.Marshal(&v1.WatchLinksRequest{Namespace: "game", Service: service})
			id, err := r.begin(v1.FleetService_WatchLinks_FullMethodName)
			if err == nil {
				err = r.frames.WriteData(id, true, append([]byte{0, 0, 0, 0, byte(len(message))}, message...))
			}
			ok = err == nil && r.out.Flush() == nil
			a.tried.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// rapidReset begins calls and resets each at once: half of them without a message, half with one.
func (a *attacker) rapidReset(ctx context.Context) {
	var connections atomic.Int64
	many(ctx, 4, func(ctx context.Context) {
		r, ok := a.rawGRPC(ctx)
		message := connections.Add(1)%2 == 0
		for ok {
			id, err := r.begin(getLink)
			if message && err == nil {
				err = r.frames.WriteData(id, true, []byte{0, 0, 0, 0, 0})
			}
			ok = err == nil && r.frames.WriteRSTStream(id, http2.ErrCodeCancel) == nil
			a.tried.Add(1)
		}
	})
}

// farDeadlines begins and resets calls, and calls methods that do not exist, with a deadline in years.
func (a *attacker) farDeadlines(ctx context.Context) {
	many(ctx, 2, func(ctx context.Context) {
		r, ok := a.rawGRPC(ctx)
		for ok {
			_, err := r.begin("/x/y", hpack.HeaderField{Name: "grpc-timeout", Value: "99999999H"})
			id, _ := r.begin(getLink, hpack.HeaderField{Name: "grpc-timeout", Value: "99999999H"})
			ok = err == nil && r.frames.WriteRSTStream(id, http2.ErrCodeCancel) == nil
			a.tried.Add(1)
		}
	})
}

// connections opens as many connections to each listener as it can, and keeps them.
func (a *attacker) connections(ctx context.Context) {
	var all sync.WaitGroup
	for _, addr := range []string{a.grpc, a.http, a.admin} {
		all.Go(func() {
			many(ctx, 8, func(ctx context.Context) {
				conn, ok := a.dial(ctx, addr)
				if !ok {
					return
				}
				a.tried.Add(1)
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if _, err := conn.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
					a.refused.Add(1)
					_ = conn.Close()
					return
				}
				kept.Store(conn, nil)
			})
		})
	}
	all.Wait()
}

// kept keeps connections from the garbage collector, which would close them.
var kept sync.Map

// slowHeaders sends the headers of requests byte by byte, on more connections than an address may have.
func (a *attacker) slowHeaders(ctx context.Context) {
	many(ctx, 1200, func(ctx context.Context) {
		conn, ok := a.dial(ctx, a.http)
		if !ok {
			return
		}
		defer conn.Close()
		a.tried.Add(1)
		_, err := io.WriteString(conn, "GET /v1/namespaces/game/links/u HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		for ; err == nil; time.Sleep(200 * time.Millisecond) {
			_, err = io.WriteString(conn, "x")
		}
		a.refused.Add(1)
	})
}

// requests sends requests on n connections, each again when it is answered.
func (a *attacker) requests(ctx context.Context, n int, addr string, make func(i int) *http.Request) {
	client := &http.Client{Transport: &http.Transport{DialContext: from(attackerAddress).DialContext, MaxIdleConnsPerHost: n}}
	var i atomic.Int64
	many(ctx, n, func(ctx context.Context) {
		request := make(int(i.Add(1))).WithContext(ctx)
		request.URL.Scheme, request.URL.Host = "http", addr
		response, err := client.Do(request)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			return
		}
		a.tried.Add(1)
		if response.StatusCode != http.StatusOK {
			a.refused.Add(1)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	})
}

func request(method, path string, headers ...string) *http.Request {
	r, err := http.NewRequest(method, path, http.NoBody)
	if err != nil {
		panic(err) // A mistake in this file.
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	r.Host = r.Header.Get("Host")
	return r
}

// scrapes asks for the metrics.
func (a *attacker) scrapes(ctx context.Context) {
	a.requests(ctx, 64, a.admin, func(int) *http.Request { return request(http.MethodGet, "/metrics") })
}

// profiles takes profiles that stop the process, or cost it time.
func (a *attacker) profiles(ctx context.Context) {
	paths := []string{"goroutine?debug=2", "heap?gc=1", "profile?seconds=1", "allocs", "trace?seconds=1", "mutex"}
	a.requests(ctx, 32, a.admin, func(i int) *http.Request {
		return request(http.MethodGet, "/debug/pprof/"+paths[i%len(paths)])
	})
}

// webPages sends what a foreign web page makes a browser send.
func (a *attacker) webPages(ctx context.Context) {
	const path = "/v1/namespaces/game/services/room/links:batchGet"
	a.requests(ctx, 16, a.http, func(i int) *http.Request {
		switch i % 3 {
		case 0:
			return request(http.MethodPost, path, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example")
		case 1:
			return request(http.MethodDelete, "/v1/namespaces/game/links/user-1/services/room", "Origin: https://evil.example")
		default:
			return request(http.MethodGet, "/v1/namespaces/game/links/user-1/services/room", "Host: evil.example")
		}
	})
}

// forcedTraces asks for a trace of each of its calls.
func (a *attacker) forcedTraces(ctx context.Context) {
	a.requests(ctx, 8, a.http, func(i int) *http.Request {
		return request(http.MethodGet, "/v1/namespaces/game/links/user-1/services/room",
			fmt.Sprintf("Traceparent: 00-%032x-00f067aa0ba902b7-01", i+1))
	})
}
