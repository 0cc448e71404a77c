// Package conf is podlink's configuration: keys (conf.proto), defaults, loading and validation. configs/config.yaml documents
// every key.
package conf

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

// The values of data.redis.mode.
const (
	ModeEmbedded   = "embedded"
	ModeStandalone = "standalone"
	ModeSentinel   = "sentinel"
	ModeCluster    = "cluster"
)

// The values of registry.type.
const (
	RegistryNone       = "none"
	RegistryEtcd       = "etcd"
	RegistryConsul     = "consul"
	RegistryKubernetes = "kubernetes"
)

// The values of auth.mode.
const (
	AuthOff      = "off"
	AuthRequired = "required"
)

// The values of a listener's tls.client_auth.
const (
	ClientAuthNone     = "none"
	ClientAuthOptional = "optional"
	ClientAuthRequire  = "require"
)

// The values of audit.mutations and audit.uids.
const (
	MutationsOfOperators = "operators"
	MutationsAll         = "all"
	UIDsHashed           = "hmac"
	UIDsPlain            = "plain"
)

// Default returns the default configuration: loopback listeners and the embedded store.
func Default() *Bootstrap {
	return &Bootstrap{
		Server: &Server{
			Http: &Server_HTTP{
				Addr: "127.0.0.1:8000", Timeout: durationpb.New(time.Second), IdleTimeout: durationpb.New(620 * time.Second),
				Tls: defaultServerTLS(),
			},
			Grpc: &Server_GRPC{
				Addr: "127.0.0.1:9000", Timeout: durationpb.New(time.Second), MaxStreams: 1000,
				MaxConnectionAge: durationpb.New(30 * time.Minute), Tls: defaultServerTLS(),
			},
			Admin:          &Server_Admin{Addr: "127.0.0.1:8001", Tls: defaultServerTLS()},
			Stop:           &Server_Stop{Drain: durationpb.New(time.Second), Timeout: durationpb.New(10 * time.Second)},
			MaxConnections: 8192, MaxConnectionsPerPeer: 1024, MaxInFlight: 4096,
			MaxWatches: 4096, MaxWatchesPerCaller: 256, MaxWatchedServices: 1024,
		},
		Data: &Data{Redis: &Data_Redis{
			Mode:         ModeEmbedded,
			Addrs:        []string{"127.0.0.1:6379"},
			MasterName:   "mymaster",
			Prefix:       "podlink",
			PoolSize:     64,
			MinIdleConns: 2,
			PoolTimeout:  durationpb.New(500 * time.Millisecond),
			DialTimeout:  durationpb.New(500 * time.Millisecond),
			ReadTimeout:  durationpb.New(500 * time.Millisecond),
			WriteTimeout: durationpb.New(500 * time.Millisecond),
			AutoPipeline: true,
			WaitTimeout:  durationpb.New(200 * time.Millisecond),
			Tls:          &TLS{},
			// Below the four minutes after which some clouds' load balancers forget a connection.
			ConnMaxIdleTime: durationpb.New(3 * time.Minute),
		}},
		State:  &State{PodTtl: durationpb.New(30 * time.Second), ForgetAfter: durationpb.New(24 * time.Hour)},
		Limits: &Limits{MaxBatch: 1000, MaxPods: 4096, MaxServices: 256, MaxJobs: 1000},
		Log: &Log{
			Level: "info", Format: "json",
			SlowRequest: durationpb.New(500 * time.Millisecond), RepeatInterval: durationpb.New(time.Second),
		},
		Trace: &Trace{SamplingRatio: 0.01, ParentBased: true, MaxForced: 100, Tls: &TLS{}},
		Registry: &Registry{
			Type: RegistryNone, Addrs: []string{"127.0.0.1:2379"}, Namespace: "/microservices",
			Ttl: durationpb.New(15 * time.Second), Tls: &TLS{},
		},
		Auth:  &Auth{Mode: AuthOff, Mtls: &Auth_MTLS{}, Rate: 2000},
		Audit: &Audit{Mutations: MutationsOfOperators, Uids: UIDsHashed},
		Fleet: defaultFleet(),
	}
}

// Pairs returns a list of "name=value" as a map.
func Pairs(list []string) map[string]string {
	pairs := make(map[string]string, len(list))
	for _, text := range list {
		name, value, _ := strings.Cut(text, "=")
		pairs[name] = value
	}
	return pairs
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Validate returns an error that names every invalid or contradictory value by its YAML path.
func (b *Bootstrap) Validate() error {
	var v violations
	server, redis := b.GetServer(), b.GetData().GetRedis()
	listeners := server.listeners()
	for _, path := range sortedKeys(listeners) {
		v.address(path, listeners[path])
	}
	v.distinct(listeners)
	v.unmasked(b.ProtoReflect(), "")
	requests := map[string]time.Duration{
		"server.http.timeout": server.GetHttp().GetTimeout().AsDuration(),
		"server.grpc.timeout": server.GetGrpc().GetTimeout().AsDuration(),
	}
	for _, path := range sortedKeys(requests) {
		v.duration(path, requests[path], time.Millisecond, time.Minute)
	}
	v.duration("server.stop.drain", server.GetStop().GetDrain().AsDuration(), 0, time.Minute)
	v.duration("server.stop.timeout", server.GetStop().GetTimeout().AsDuration(), time.Second, 5*time.Minute)

	v.redis(redis)
	v.embedded(b)
	timeouts := map[string]time.Duration{
		"data.redis.pool_timeout":  redis.GetPoolTimeout().AsDuration(),
		"data.redis.dial_timeout":  redis.GetDialTimeout().AsDuration(),
		"data.redis.read_timeout":  redis.GetReadTimeout().AsDuration(),
		"data.redis.write_timeout": redis.GetWriteTimeout().AsDuration(),
	}
	for _, path := range sortedKeys(timeouts) {
		v.duration(path, timeouts[path], time.Millisecond, time.Minute)
		for _, request := range sortedKeys(requests) {
			if timeouts[path] >= requests[request] {
				v.add(path, "must be below %s (%s), or calls time out before podlink knows why", request, requests[request])
			}
		}
	}

	v.wholeSeconds("state.pod_ttl", b.GetState().GetPodTtl().AsDuration(), time.Second, 365*24*time.Hour)
	v.duration("state.forget_after", b.GetState().GetForgetAfter().AsDuration(), time.Second, 365*24*time.Hour)
	v.between("limits.max_pods", b.GetLimits().GetMaxPods(), 1, 10_000)
	v.between("limits.max_services", b.GetLimits().GetMaxServices(), 1, 4096)
	v.between("limits.max_jobs", b.GetLimits().GetMaxJobs(), 1, 10_000)
	v.between("limits.max_batch", b.GetLimits().GetMaxBatch(), 1, 100_000)
	v.oneOf("log.level", b.GetLog().GetLevel(), "debug", "info", "warn", "error")
	v.oneOf("log.format", b.GetLog().GetFormat(), "json", "console")
	v.duration("log.slow_request", b.GetLog().GetSlowRequest().AsDuration(), 0, time.Minute)
	v.duration("log.repeat_interval", b.GetLog().GetRepeatInterval().AsDuration(), 0, time.Minute)
	v.trace(b.GetTrace())
	v.registry(b.GetRegistry())
	v.bounds(server)
	v.auth(b)
	v.audit(b.GetAudit())
	v.fleet(b.GetFleet())
	return v.err()
}

func (v *violations) redis(c *Data_Redis) {
	v.oneOf("data.redis.mode", c.GetMode(), ModeEmbedded, ModeStandalone, ModeSentinel, ModeCluster)
	if c.GetMode() != ModeEmbedded {
		if len(c.GetAddrs()) == 0 {
			v.add("data.redis.addrs", "must name at least one host:port")
		}
		for i, addr := range c.GetAddrs() {
			v.address(fmt.Sprintf("data.redis.addrs[%d]", i), addr)
		}
	}
	if c.GetMode() == ModeStandalone && len(c.GetAddrs()) > 1 {
		v.add("data.redis.addrs", "must name one host:port with mode standalone, has %d", len(c.GetAddrs()))
	}
	if c.GetMode() == ModeSentinel && c.GetMasterName() == "" {
		v.add("data.redis.master_name", "is required with mode sentinel")
	}
	if c.GetMode() == ModeCluster && c.GetDb() != 0 {
		v.add("data.redis.db", "must be 0 with mode cluster, is %d", c.GetDb())
	}
	if c.GetUsername() != "" && c.GetPassword() == "" {
		v.add("data.redis.password", "is required with a username")
	}
	if c.GetSentinelUsername() != "" && c.GetSentinelPassword() == "" {
		v.add("data.redis.sentinel_password", "is required with a sentinel_username")
	}
	if c.GetMode() != ModeSentinel && c.GetSentinelPassword() != "" {
		v.add("data.redis.sentinel_password", "is for mode sentinel only, mode is %s", c.GetMode())
	}
	v.between("data.redis.wait_replicas", c.GetWaitReplicas(), 0, 10)
	if c.GetMode() == ModeEmbedded && c.GetWaitReplicas() != 0 {
		v.add("data.redis.wait_replicas", "must be 0 with mode embedded, which has no replicas")
	}
	v.duration("data.redis.wait_timeout", c.GetWaitTimeout().AsDuration(), time.Millisecond, time.Minute)
	if c.GetWaitReplicas() > 0 && c.GetWaitTimeout().AsDuration() >= c.GetReadTimeout().AsDuration() {
		v.add("data.redis.wait_timeout", "must be below data.redis.read_timeout (%s), or Redis replies too late",
			c.GetReadTimeout().AsDuration())
	}
	if c.GetTls().GetEnabled() && c.GetMode() == ModeEmbedded {
		v.add("data.redis.tls.enabled", "must be false with mode embedded")
	} else {
		v.tls("data.redis.tls", c.GetTls())
	}
	v.between("data.redis.db", c.GetDb(), 0, 1<<16)
	if !prefixPattern.MatchString(c.GetPrefix()) {
		v.add("data.redis.prefix", "must be 1 to 64 characters A-Z a-z 0-9 . _ -")
	}
	v.between("data.redis.pool_size", c.GetPoolSize(), 1, 10_000)
	v.between("data.redis.min_idle_conns", c.GetMinIdleConns(), 0, c.GetPoolSize())
	v.duration("data.redis.conn_max_idle_time", c.GetConnMaxIdleTime().AsDuration(), time.Second, 24*time.Hour)
}

// headerPattern matches "name=value" where name and value are valid gRPC metadata.
var headerPattern = regexp.MustCompile(`^[a-z0-9._-]{1,64}=[ -~]*$`)

func (v *violations) trace(c *Trace) {
	if ratio := c.GetSamplingRatio(); !(ratio >= 0 && ratio <= 1) { // Also rejects NaN.
		v.add("trace.sampling_ratio", "must be from 0 to 1, is %v", ratio)
	}
	for i, header := range c.GetHeaders() {
		if !headerPattern.MatchString(header) || strings.HasPrefix(header, "grpc-") {
			// The value may be a token: errors do not contain it.
			v.add(fmt.Sprintf("trace.headers[%d]", i), "must be name=value, with a name of a-z 0-9 . _ - that does not begin with grpc-")
		}
	}
	if rate := c.GetMaxForced(); !(rate >= 0 && rate <= 100_000) {
		v.add("trace.max_forced", "must be from 0 to 100000, is %v", rate)
	}
	v.tls("trace.tls", c.GetTls())
	if c.GetEndpoint() == "" {
		if c.GetTls().GetEnabled() {
			v.add("trace.endpoint", "is required with trace.tls.enabled")
		}
		return
	}
	v.address("trace.endpoint", c.GetEndpoint())
	if len(c.GetHeaders()) > 0 && !c.GetTls().GetEnabled() && !Loopback(c.GetEndpoint()) {
		v.add("trace.tls.enabled", "must be true with trace.headers, or they cross the network in plaintext")
	}
}

// endpointPattern matches endpoints that Kratos clients support.
var (
	endpointPattern  = regexp.MustCompile(`^(grpc|grpcs|http|https)://([^/?#]+)$`)
	metadataPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}=[ -~]{0,256}$`)
	namespacePattern = regexp.MustCompile(`^/[A-Za-z0-9._/-]{0,127}$`)
)

func (v *violations) registry(c *Registry) {
	v.oneOf("registry.type", c.GetType(), RegistryNone, RegistryEtcd, RegistryConsul, RegistryKubernetes)
	switch n := len(c.GetAddrs()); {
	case c.GetType() == RegistryEtcd && n == 0:
		v.add("registry.addrs", "must name at least one host:port")
	case c.GetType() == RegistryConsul && n != 1: // A registration belongs to one agent.
		v.add("registry.addrs", "must name one host:port with type consul, that of the agent, has %d", n)
	}
	if c.GetToken() != "" && (c.GetType() == RegistryEtcd || c.GetType() == RegistryKubernetes) {
		v.add("registry.token", "is for type consul only, type is %s", c.GetType())
	}
	switch c.GetType() {
	case RegistryNone:
		v.unregistered(c)
	case RegistryKubernetes:
		v.inPod(c)
	}
	for i, addr := range c.GetAddrs() {
		v.address(fmt.Sprintf("registry.addrs[%d]", i), addr)
	}
	if c.GetUsername() != "" && c.GetPassword() == "" {
		v.add("registry.password", "is required with a username")
	}
	if c.GetUsername() == "" && c.GetPassword() != "" {
		v.add("registry.username", "is required with a password")
	}
	if !namespacePattern.MatchString(c.GetNamespace()) || strings.HasSuffix(c.GetNamespace(), "/") {
		v.add("registry.namespace", "must begin with /, must not end with it, and may contain A-Z a-z 0-9 . _ - /")
	}
	v.wholeSeconds("registry.ttl", c.GetTtl().AsDuration(), 5*time.Second, 5*time.Minute)
	for i, endpoint := range c.GetEndpoints() {
		path := fmt.Sprintf("registry.endpoints[%d]", i)
		parts := endpointPattern.FindStringSubmatch(endpoint)
		if parts == nil {
			v.add(path, "must look like grpc://10.0.0.1:9000 or http://10.0.0.1:8000, is %q", endpoint)
			continue
		}
		if host, port, err := net.SplitHostPort(parts[2]); err == nil && (unspecified(host) || port == "0") {
			v.add(path, "must have a host and a port that callers can reach, is %q", endpoint)
			continue
		}
		v.address(path, parts[2])
	}
	for i, pair := range c.GetMetadata() {
		if !metadataPattern.MatchString(pair) {
			v.add(fmt.Sprintf("registry.metadata[%d]", i), "must be name=value, with a name of A-Z a-z 0-9 . _ -, is %q", pair)
		}
	}
	v.tls("registry.tls", c.GetTls())
}

// unregistered rejects keys that only make sense with a registry: without its type, podlink would silently not be registered.
func (v *violations) unregistered(c *Registry) {
	set := map[string]bool{
		"registry.addrs":       !slices.Equal(c.GetAddrs(), Default().GetRegistry().GetAddrs()),
		"registry.endpoints":   len(c.GetEndpoints()) > 0,
		"registry.metadata":    len(c.GetMetadata()) > 0,
		"registry.tls.enabled": c.GetTls().GetEnabled(),
		"registry.username":    c.GetUsername() != "",
		"registry.token":       c.GetToken() != "",
	}
	for _, path := range sortedKeys(set) {
		if set[path] {
			v.add(path, "is for a registry, but registry.type is none")
		}
	}
}

// inPod rejects keys without a meaning in Kubernetes, which gives a pod the API server's address and credentials, and gives
// callers the pod's address.
func (v *violations) inPod(c *Registry) {
	set := map[string]bool{
		"registry.endpoints":   len(c.GetEndpoints()) > 0,
		"registry.tls.enabled": c.GetTls().GetEnabled(),
		"registry.username":    c.GetUsername() != "",
	}
	for _, path := range sortedKeys(set) {
		if set[path] {
			v.add(path, "must not be set with type kubernetes, which uses the pod's own address and service account")
		}
	}
}

// violations are the errors of Validate.
type violations []string

func (v *violations) add(path, format string, args ...any) {
	*v = append(*v, path+" "+fmt.Sprintf(format, args...))
}

func (v *violations) err() error {
	if len(*v) == 0 {
		return nil
	}
	return fmt.Errorf("configuration: %s", maskCredentials(strings.Join(*v, "; ")))
}

func (v *violations) address(path, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		v.add(path, "must be host:port, is %q", addr)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || strings.ContainsAny(host, " /") {
		v.add(path, "must be host:port, is %q", addr)
	}
}

func (v *violations) duration(path string, d, least, most time.Duration) {
	if d < least || d > most {
		v.add(path, "must be from %s to %s, is %s", least, most, d)
	}
}

func (v *violations) wholeSeconds(path string, d, least, most time.Duration) {
	v.duration(path, d, least, most)
	if d%time.Second != 0 {
		v.add(path, "must be whole seconds, is %s", d)
	}
}

func (v *violations) between(path string, n, least, most int32) {
	if n < least || n > most {
		v.add(path, "must be from %d to %d, is %d", least, most, n)
	}
}

func (v *violations) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(path, "must be one of %s, is %q", strings.Join(allowed, ", "), value)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
