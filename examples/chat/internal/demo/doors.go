package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/examples/chat/names"
)

// The names of those who call podlink, beside the pods.
const (
	routing   = "caller"
	operating = "operator" // the demo itself
	watching  = "watcher"
	unknown   = "stranger" // has a certificate, and a token that podlink does not know
)

// policy is who may do what. A pod's token says which pod it is: it reports that pod alone, and changes the links of that pod alone.
const policy = `rules:
  - {who: ["token:caller"], role: caller, namespaces: [demo], services: [chat]}
  - {who: [%s], role: pod, namespaces: [demo], services: [chat], pod_name: "chat-{ordinal}"}
  - {who: ["token:operator"], role: operator, namespaces: [demo], services: ["*"]}
  - {who: ["token:watcher"], role: reader, namespaces: [demo], services: [chat]}
`

// doors are the certificates, the tokens and the policy of a demo with -secure. They are made at its start.
type doors struct{ dir string }

func (d doors) path(file string) string { return filepath.Join(d.dir, file) }

// openDoors makes everything that podlink and its callers need to know each other.
func (d *demo) openDoors(context.Context) error {
	if !d.Secure {
		return nil
	}
	fmt.Fprintln(d.Out, "podlink asks everyone for a certificate and a token.")
	d.doors = &doors{filepath.Join(d.logs, "doors")}
	return d.doors.make()
}

func (d doors) make() error {
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(d.path("ca.crt"))
	if err != nil {
		return err
	}
	callers := []string{routing, operating, watching, unknown}
	var entries, who []string
	for i := range pods {
		callers, who = append(callers, podName(i)), append(who, fmt.Sprintf("%q", "token:"+podName(i)))
	}
	for _, name := range callers {
		token := rand.Text() + rand.Text()
		if err := errors.Join(ca.sign(name, d.path(name+".crt"), d.path(name+".key")), d.write(name+".token", token)); err != nil {
			return err
		}
		entry := fmt.Sprintf("- {name: %s, sha256: %x, not_after: %s", name, sha256.Sum256([]byte(token)),
			time.Now().Add(proofTTL).UTC().Format(time.RFC3339))
		if strings.HasPrefix(name, names.Service+"-") {
			entry += ", pod: " + name
		}
		if name != unknown {
			entries = append(entries, entry+"}\n")
		}
	}
	return errors.Join(ca.sign("podlink", d.path("podlink.crt"), d.path("podlink.key")),
		d.write("tokens.yaml", strings.Join(entries, "")), d.write("policy.yaml", fmt.Sprintf(policy, strings.Join(who, ", "))))
}

func (d doors) write(file, content string) error {
	return os.WriteFile(d.path(file), []byte(content), 0o600)
}

// env makes podlink ask who calls.
func (d *doors) env() []string {
	if d == nil {
		return nil
	}
	env := []string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE=" + d.path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + d.path("policy.yaml"),
	}
	for _, listener := range []string{"HTTP", "GRPC"} {
		tls := "PODLINK_SERVER_" + listener + "_TLS_"
		env = append(env, tls+"ENABLED=true", tls+"CLIENT_AUTH=require",
			tls+"CERT_FILE="+d.path("podlink.crt"), tls+"KEY_FILE="+d.path("podlink.key"), tls+"CLIENT_CA_FILE="+d.path("ca.crt"))
	}
	return env
}

// show adds what the caller of that name shows podlink.
func (d *doors) show(o client.Options, name string) client.Options {
	if d != nil {
		o.CAFile, o.CertFile, o.KeyFile = d.path("ca.crt"), d.path(name+".crt"), d.path(name+".key")
		o.TokenFile = d.path(name + ".token")
	}
	return o
}

// flags are the pod's.
func (d *doors) flags(name string) []string {
	if d == nil {
		return nil
	}
	o := d.show(client.Options{}, name)
	return []string{"-ca", o.CAFile, "-cert", o.CertFile, "-key", o.KeyFile, "-token", o.TokenFile}
}

// allowed is all that one could call.
type allowed struct {
	*client.Client
	v1.FleetServiceClient
}

// try is something that its caller may not do.
type try struct {
	who, what string
	call      func(ctx context.Context, c allowed) error
	want      error
}

// tries are what strangers, callers and pods could do harm with.
func tries(room *v1.Link) []try {
	report := func(pod int32) func(ctx context.Context, c allowed) error {
		return func(ctx context.Context, c allowed) error {
			_, err := c.SetServiceState(ctx, &v1.SetServiceStateRequest{
				Namespace: names.Namespace, Service: names.Service, PodId: &pod, State: "taken", TtlSeconds: proto.Int32(60),
			})
			return err
		}
	}
	move := func(pod int32, expected *int64) func(ctx context.Context, c allowed) error {
		return func(ctx context.Context, c allowed) error {
			_, err := c.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
				Namespace: names.Namespace, Service: names.Service, Uid: room.GetUid(), PodId: &pod, ExpectedEpoch: expected,
			})
			return err
		}
	}
	read := func(ctx context.Context, c allowed) error {
		_, err := c.GetServiceState(ctx, &v1.GetServiceStateRequest{Namespace: names.Namespace, Service: names.Service})
		return err
	}
	empty := func(ctx context.Context, c allowed) error {
		_, err := c.CreateJob(ctx, relocateJob())
		if err != nil {
			return kerrors.FromError(err)
		}
		return nil
	}
	watch := func(ctx context.Context, c allowed) error {
		stream, err := c.WatchLinks(ctx, &v1.WatchLinksRequest{Namespace: names.Namespace, Service: names.Service})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			return kerrors.FromError(err)
		}
		return nil
	}
	other := (room.GetPodId() + 1) % pods
	return []try{
		{unknown, "read the pods", read, client.ErrUnauthenticated},
		{unknown, "report a pod", report(0), client.ErrUnauthenticated},
		{unknown, "watch the rooms", watch, client.ErrUnauthenticated},
		{watching, "empty a pod", empty, client.ErrPermissionDenied},
		{podName(relocated), "empty itself", empty, client.ErrPermissionDenied},
		{routing, "report a pod", report(0), client.ErrPermissionDenied},
		{routing, "move a room", move(other, nil), client.ErrPermissionDenied},
		{podName(int(other)), "report another pod", report(room.GetPodId()), client.ErrPermissionDenied},
		{podName(int(other)), "move another pod's room without its epoch", move(other, nil), client.ErrPermissionDenied},
		{podName(int(other)), "take another pod's room", move(other, &room.Epoch), client.ErrEpochMismatch},
		{podName(int(room.GetPodId())), "give its room to another pod", move(other, &room.Epoch), client.ErrPermissionDenied},
	}
}

// knock makes every try, and records those that were not refused. What the operator does then is permitted: it lifts a cordon.
func (d *demo) knock(ctx context.Context) error {
	if d.doors == nil {
		return nil
	}
	d.screen.headline("Strangers, the caller and pods try what they may not do")
	reply, err := d.client.GetLinkedPod(ctx, &v1.GetLinkedPodRequest{
		Namespace: names.Namespace, Service: names.Service, Uid: d.talk.rooms[0].name,
	})
	if err != nil {
		return err
	}
	for _, t := range tries(reply.GetLink()) {
		d.tries++
		if err := d.attempt(ctx, t); !errors.Is(err, t.want) {
			d.letIn = append(d.letIn, fmt.Sprintf("%s could %s: %v", t.who, t.what, err))
		}
	}
	_, err = d.client.CordonPod(ctx, &v1.CordonPodRequest{
		Namespace: names.Namespace, Service: names.Service, PodId: new(int32(0)), Cordon: v1.Routing_READY.Enum(),
	})
	return err
}

func (d *demo) attempt(ctx context.Context, t try) error {
	c, err := client.New(d.podlink, d.doors.show(client.Options{}, t.who)) //nolint:contextcheck // It outlives no call.
	if err != nil {
		return err
	}
	defer c.Close()
	conn, err := d.dial(t.who)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, client.DefaultTimeout)
	defer cancel()
	return t.call(ctx, allowed{c, v1.NewFleetServiceClient(conn)})
}

// refusals is the promise of podlink's doors.
func (d *demo) refusals() promise {
	which := strings.Join(append([]string{""}, d.letIn...), "; ")
	return promise{d.tries > 0 && len(d.letIn) == 0, fmt.Sprintf(
		"access: %d attempts without the right to it, %d not refused%s", d.tries, len(d.letIn), which)}
}
