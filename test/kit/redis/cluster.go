package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"podlink/test/kit/proc"
)

const (
	slots = 16384
	// moveBatch is how many keys MoveSlot moves at a time: MIGRATE blocks both nodes.
	moveBatch = 10
)

// ClusterOptions configures a Cluster.
type ClusterOptions struct {
	Primaries int
	Replicas  int      // of each primary
	Args      []string // of every node
	// Proxied puts a proxy in front of every node: clients and other nodes know the node by the proxy's address.
	Proxied bool
}

// Cluster is a Redis Cluster.
type Cluster struct {
	tb      testing.TB
	nodes   []*Server
	proxies proxies
	size    ClusterOptions
}

// StartCluster starts primaries, which share the slots evenly, and their replicas, and waits until the cluster is healthy.
func StartCluster(tb testing.TB, options ClusterOptions) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, size: options}
	buses := c.startNodes()
	ctx := context.Background()
	do := func(node *Server, command string, args ...any) {
		tb.Helper()
		if err := node.admin.Do(ctx, append([]any{"CLUSTER", command}, args...)...).Err(); err != nil {
			tb.Fatalf("CLUSTER %s: %v", command, err)
		}
	}
	for i, node := range c.nodes {
		do(node, "SET-CONFIG-EPOCH", i+1) // Nodes with equal ones would first have to resolve the conflict.
		if i > 0 {
			do(node, "MEET", loopback, c.nodes[0].port, buses[0])
		}
		if i < options.Primaries {
			do(node, "ADDSLOTSRANGE", i*slots/options.Primaries, (i+1)*slots/options.Primaries-1)
		}
	}
	wait(tb, "all nodes know each other", func() bool {
		return !slices.ContainsFunc(c.nodes, func(node *Server) bool { return len(nodesKnownTo(node)) != len(c.nodes) })
	})
	for i, node := range c.nodes[options.Primaries:] {
		do(node, "REPLICATE", myself(c.nodes[i%options.Primaries]).id)
	}
	c.WaitHealthy()
	return c
}

// startNodes starts the processes and returns their cluster bus ports.
func (c *Cluster) startNodes() []string {
	c.tb.Helper()
	nodes := c.size.Primaries * (1 + c.size.Replicas)
	buses := make([]string, nodes)
	// The default bus port, port + 10000, may be out of range or taken.
	for i, bus := range proc.FreePorts(c.tb, nodes) {
		buses[i] = strconv.Itoa(bus)
		args := append([]string{"--cluster-enabled", "yes", "--cluster-port", buses[i]}, c.size.Args...)
		announce := func(port string) []string {
			return []string{"--cluster-announce-ip", loopback, "--cluster-announce-port", port}
		}
		c.nodes = append(c.nodes, c.proxies.start(c.tb, c.size.Proxied, args, announce))
	}
	return buses
}

// Addrs returns the nodes' host:port, as clients know them.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		addrs[i] = c.proxies.addr(node)
	}
	return addrs
}

// Nodes returns the servers, in the order of Addrs.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// Proxies returns the proxies of the nodes, in the order of Addrs.
func (c *Cluster) Proxies() []*Proxy { return c.proxies.of(c.nodes) }

// Primaries returns the nodes that own slots, in their own view, in the order of Addrs.
func (c *Cluster) Primaries() []*Server {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(node *Server) bool { return len(myself(node).slots) == 0 })
}

// Owner returns the primary that owns the key's slot, nil while there is none. After a failover it is the promoted
// replica, even if the old primary still considers itself the owner.
func (c *Cluster) Owner(key string) *Server {
	var owner *Server
	newest := -1
	for _, node := range c.nodes {
		if me := myself(node); me.owns(Slot(key)) && me.epoch > newest {
			owner, newest = node, me.epoch
		}
	}
	return owner
}

// Owned returns a function that reports whether the node owns a key, at the time of the call to Owned.
func (c *Cluster) Owned(node *Server) func(key string) bool {
	me := myself(node)
	return func(key string) bool { return me.owns(Slot(key)) }
}

// ReplicaOf returns a replica of the primary, or nil.
func (c *Cluster) ReplicaOf(primary *Server) *Server {
	id := myself(primary).id
	i := slices.IndexFunc(c.nodes, func(node *Server) bool {
		me := myself(node)
		return me.id != "" && me.primary == id
	})
	if i < 0 {
		return nil
	}
	return c.nodes[i]
}

// WaitHealthy waits until the cluster is healthy: every slot has a primary with all its replicas in sync, and all nodes agree.
func (c *Cluster) WaitHealthy() {
	c.tb.Helper()
	wait(c.tb, "the cluster is healthy", c.healthy)
}

func (c *Cluster) healthy() bool {
	agreed := nodesKnownTo(c.nodes[0])
	replicas := make(map[string]int)
	for _, node := range agreed {
		if node.primary != "" {
			replicas[node.primary]++
		}
	}
	for _, node := range c.nodes {
		info, err := node.admin.ClusterInfo(context.Background()).Result()
		if err != nil || !strings.Contains(info, "cluster_state:ok\r\n") ||
			!strings.Contains(info, "cluster_slots_ok:"+strconv.Itoa(slots)+"\r\n") {
			return false
		}
		me := myself(node)
		switch {
		case len(agreed) != len(c.nodes), !slices.EqualFunc(agreed, nodesKnownTo(node), clusterNode.equal):
			return false
		case me.primary != "" && !node.inSync():
			return false
		case me.primary == "" && replicas[me.id] < c.size.Replicas:
			return false
		}
	}
	return true
}

// MoveSlot moves a slot with its keys in small steps, like resharding tools, while clients use it.
func (c *Cluster) MoveSlot(slot int, from, to *Server) {
	c.tb.Helper()
	ctx := context.Background()
	do := func(node *Server, args ...any) {
		c.tb.Helper()
		if err := node.admin.Do(ctx, args...).Err(); err != nil {
			c.tb.Fatalf("moving slot %d: %v: %v", slot, args, err)
		}
	}
	source, target := myself(from).id, myself(to).id
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	for {
		keys, err := from.admin.ClusterGetKeysInSlot(ctx, slot, moveBatch).Result()
		if err != nil {
			c.tb.Fatalf("moving slot %d: %v", slot, err)
		}
		if len(keys) == 0 {
			break
		}
		command := []any{"MIGRATE", loopback, to.port, "", 0, waitTimeout.Milliseconds(), "KEYS"}
		for _, key := range keys {
			command = append(command, key)
		}
		do(from, command...)
	}
	// The target first: a source that gives up a slot without a new owner redirects clients back and forth.
	primaries := slices.DeleteFunc(c.Primaries(), func(node *Server) bool { return node == from || node == to })
	for _, node := range append([]*Server{to, from}, primaries...) {
		do(node, "CLUSTER", "SETSLOT", slot, "NODE", target)
	}
}

// Slot returns the slot of a key.
func Slot(key string) int {
	if _, rest, found := strings.Cut(key, "{"); found {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			key = tag
		}
	}
	return int(crc16(key)) % slots
}

// crc16 returns the checksum that maps keys to slots (CRC16/XMODEM).
func crc16(text string) uint16 {
	const polynomial = 0x1021
	var sum uint16
	for i := range len(text) {
		sum ^= uint16(text[i]) << 8
		for range 8 {
			carry := sum&0x8000 != 0
			sum <<= 1
			if carry {
				sum ^= polynomial
			}
		}
	}
	return sum
}

// clusterNode is an entry of CLUSTER NODES: a node as another one, or itself, sees it.
type clusterNode struct {
	id      string
	flags   []string
	primary string // id of its primary; empty for a primary
	epoch   int    // config epoch; the highest wins
	slots   []slotRange
}

type slotRange struct{ from, to int }

func (n clusterNode) owns(slot int) bool {
	return slices.ContainsFunc(n.slots, func(r slotRange) bool { return r.from <= slot && slot <= r.to })
}

// healthy reports whether the node is known and not suspected to be down.
func (n clusterNode) healthy() bool {
	return !slices.ContainsFunc(n.flags, func(flag string) bool {
		return slices.Contains([]string{"fail?", "fail", "handshake", "noaddr"}, flag)
	})
}

// equal reports whether two views of a node agree that it is healthy, and on its role and slots.
func (n clusterNode) equal(other clusterNode) bool {
	return n.healthy() && other.healthy() &&
		n.id == other.id && n.primary == other.primary && slices.Equal(n.slots, other.slots)
}

// myself returns the node's view of itself, the zero value if it does not answer.
func myself(node *Server) clusterNode {
	nodes := nodesKnownTo(node)
	i := slices.IndexFunc(nodes, func(node clusterNode) bool { return slices.Contains(node.flags, "myself") })
	if i < 0 {
		return clusterNode{}
	}
	return nodes[i]
}

// nodesKnownTo returns the nodes that the node knows, by id; none if it does not answer.
func nodesKnownTo(node *Server) []clusterNode {
	text, err := node.admin.ClusterNodes(context.Background()).Result()
	if err != nil {
		return nil
	}
	var nodes []clusterNode
	for line := range strings.Lines(text) {
		// id address flags primary ping-sent pong-received epoch link-state slots...
		if fields := strings.Fields(line); len(fields) >= 8 {
			nodes = append(nodes, parseNode(fields))
		}
	}
	slices.SortFunc(nodes, func(a, b clusterNode) int { return strings.Compare(a.id, b.id) })
	return nodes
}

func parseNode(fields []string) clusterNode {
	node := clusterNode{
		id:      fields[0],
		flags:   strings.Split(fields[2], ","),
		primary: strings.Trim(fields[3], "-"),
		epoch:   number(fields[6]),
	}
	for _, field := range fields[8:] {
		if strings.HasPrefix(field, "[") {
			continue // a migrating slot
		}
		from, to, several := strings.Cut(field, "-")
		if !several {
			to = from
		}
		node.slots = append(node.slots, slotRange{number(from), number(to)})
	}
	return node
}
