package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// silentTTLs is the number of TTLs after which a process that was superseded takes its successor for dead.
const silentTTLs = 3

// instanceText is what an instance id may consist of, without the random text and its separator.
var instanceText = regexp.MustCompile(`^[A-Za-z0-9._:-]{0,100}$`)

// newInstanceID returns the name of this process: the part that the app or Kubernetes gives, which a restarted container has again,
// and a random text.
func newInstanceID(given string) (string, error) {
	from := "AgentOptions.InstanceID"
	if given == "" {
		given, from = os.Getenv("POD_UID"), "POD_UID"
	}
	if !instanceText.MatchString(given) {
		return "", fmt.Errorf("%s must be at most 100 characters A-Z a-z 0-9 . _ : -, is %q", from, given)
	}
	if given == "" {
		return rand.Text(), nil
	}
	return given + "." + rand.Text(), nil
}

// instance is this process among all that have been the pod. Podlink tells them apart by the generation that it gives to each.
type instance struct {
	id string

	mu         sync.Mutex
	sequence   int64 // of the last report
	generation int64 // 0: podlink has given none yet
	supersedes int64 // the generation of the process that this one replaces; 0: none
}

// sign makes the next report one of this process.
func (i *instance) sign(report *v1.SetServiceStateRequest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sequence++
	report.InstanceId, report.Sequence, report.Generation = i.id, i.sequence, i.generation
	if i.generation == 0 {
		report.Supersedes = i.supersedes
	}
}

// learn takes the process's generation from what podlink has stored. It reports whether there was none before.
func (i *instance) learn(stored *v1.Pod) (first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if stored.GetInstanceId() != i.id || i.generation != 0 {
		return false
	}
	i.generation = stored.GetGeneration()
	return true
}

func (i *instance) hasGeneration() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.generation != 0
}

// takeOver makes the next report replace the process of that generation.
func (i *instance) takeOver(generation int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.supersedes = generation
}

// isFinal reports whether SUPERSEDED, podlink's answer to the report, ends this process: one that never had a generation may take
// over the pod, unless another one has replaced it before it heard of its generation.
func isFinal(report *v1.SetServiceStateRequest, superseded error) bool {
	return report.GetGeneration() != 0 || kerrors.FromError(superseded).Metadata["final"] == "true"
}

// readPod returns what podlink has stored about the pod; an empty one if there is nothing.
func (r *reporter) readPod(ctx context.Context) (*v1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, r.callTimeout())
	defer cancel()
	reply, err := r.states.GetServicePod(ctx, &v1.GetServicePodRequest{Namespace: r.namespace, Service: r.service, PodId: &r.pod})
	if errors.Is(err, ErrPodNotFound) {
		return &v1.Pod{}, nil
	}
	return reply.GetPod(), err
}

// outlive waits until no process reports the pod any more, or ctx ends. A process that was superseded and ended at once would be
// started again by Kubernetes, and supersede its successor: two that share an ordinal would take turns for ever. The error says
// that no other process is left.
func (r *reporter) outlive(ctx context.Context) error {
	var (
		heartbeat int64         // as last read
		read      time.Time     // when that was begun; zero: the last attempt failed
		silent    time.Duration // how long podlink has answered and the heartbeat has not changed
	)
	for {
		begun := time.Now()
		pod, err := r.readPod(ctx)
		switch {
		case err != nil: // While podlink is away, the successor can't report either.
			read = time.Time{}
		case pod.GetHeartbeatMs() != heartbeat:
			heartbeat, read, silent = pod.GetHeartbeatMs(), begun, 0
		default:
			if !read.IsZero() {
				silent += begun.Sub(read)
			}
			read = begun
		}
		if silent >= silentTTLs*r.ttl {
			return withCause(ErrSuperseded,
				fmt.Errorf("the process that has taken over pod %d of %s has been silent for %s", r.pod, r.service, silent))
		}
		if !pauseUntil(ctx, begun.Add(r.ttl)) {
			return nil
		}
	}
}
