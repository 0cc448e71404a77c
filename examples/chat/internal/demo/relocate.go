package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/examples/chat/internal/watcher"
	"podlink/examples/chat/names"
)

const (
	// relocating is the phase in which a job empties a pod.
	relocating = "relocate"
	// relocated is that pod.
	relocated = 0
	// graceSeconds is how long the job leaves the links to the pod: it is shorter than the pod's drain, so that sessions that run are moved.
	graceSeconds = 1
	// relocateTimeout bounds the job. It looks for links once more when ten seconds have passed.
	relocateTimeout = 20 * time.Second
	// compareTimeout bounds how long podlink and the watcher may take for the last changes, and podlink for a census.
	compareTimeout = 15 * time.Second
)

// relocation is what came of the job that empties a pod.
type relocation struct {
	job      *v1.Job
	took     time.Duration
	links    int   // that the pod's list had afterwards
	complete bool  // these were all
	sessions int32 // that the pod reported then
	back     int   // rooms that came to the pod after its cordon was lifted
}

// startWatcher starts to follow the links.
func (d *demo) startWatcher(ctx context.Context) error {
	conn, err := d.dial(watching)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	d.watcher = watcher.New(conn)
	go func() {
		defer close(ended)
		d.watcher.Run(ctx)
	}()
	d.onClose(func() {
		stop()
		<-ended
		_ = conn.Close()
	})
	return nil
}

// relocate empties a pod by a job, while the pod lives, and gives the pod back.
func (d *demo) relocate(ctx context.Context) error {
	conn, err := d.dial(operating)
	if err != nil {
		return err
	}
	defer conn.Close()
	fleet := v1.NewFleetServiceClient(conn)

	d.talk.setPhase(relocating)
	pod := podName(relocated)
	d.screen.headline("A job empties %s (RELOCATE): %s gets no new rooms, and %d s later its links go to other pods", pod, pod, graceSeconds)
	began := time.Now()
	if d.relocation.job, err = d.carryOut(ctx, fleet, relocateJob()); err != nil {
		return err
	}
	d.relocation.took = time.Since(began)
	links, complete, err := watcher.ListPod(ctx, fleet, relocated)
	if err != nil {
		return err
	}
	d.relocation.links, d.relocation.complete = len(links), complete
	d.relocation.sessions = d.podReport(ctx, relocated).GetLoad()
	d.screen.headline("The job is %s: %s has no rooms left. Its cordon is lifted", d.relocation.job.GetState(), pod)
	lifted := time.Now()
	_, err = d.client.CordonPod(ctx, &v1.CordonPodRequest{
		Namespace: names.Namespace, Service: names.Service, PodId: new(int32(relocated)), Cordon: v1.Routing_READY.Enum(),
	})
	if err != nil {
		return err
	}
	return d.waitServing(ctx, relocated, lifted)
}

func relocateJob() *v1.CreateJobRequest {
	return &v1.CreateJobRequest{
		Namespace: names.Namespace, Service: names.Service, Kind: v1.Job_RELOCATE, PodId: new(int32(relocated)),
		GraceSeconds: graceSeconds, Reason: "the demo", RequestId: rand.Text(),
	}
}

// carryOut creates a job, and returns it when it has ended. A request that is repeated, by its request_id, is the same job.
func (d *demo) carryOut(ctx context.Context, fleet v1.FleetServiceClient, request *v1.CreateJobRequest) (*v1.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*relocateTimeout)
	defer cancel()
	for {
		job, err := awaitJob(ctx, fleet, request)
		switch {
		case err == nil:
			return job, nil
		case status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded, d.rest(ctx, retryDelay) != nil:
			return nil, fmt.Errorf("%s: %w", request.GetKind(), err)
		}
	}
}

// awaitJob creates the job, unless it exists, and returns it when it has ended.
func awaitJob(ctx context.Context, fleet v1.FleetServiceClient, request *v1.CreateJobRequest) (*v1.Job, error) {
	created, err := fleet.CreateJob(ctx, request)
	if err != nil {
		return nil, err
	}
	stream, err := fleet.WatchJob(ctx, &v1.WatchJobRequest{Namespace: request.GetNamespace(), Job: created.GetJob().GetId()})
	if err != nil {
		return nil, err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		switch job := message.GetJob(); job.GetState() {
		case v1.Job_DONE, v1.Job_CANCELLED, v1.Job_FAILED:
			return job, nil
		default:
		}
	}
}

// following is what came of the watch.
type following struct {
	told             int      // of how many rooms that the relocation has moved the watcher was told
	listed           int      // links that podlink lists at the end
	complete         bool     // these are all
	differ           []string // the rooms of which the watcher knows something else
	changes, resyncs int
}

// compare waits until the watcher knows the links as podlink lists them, when nobody talks any more.
func (d *demo) compare(ctx context.Context) error {
	conn, err := d.dial(operating) // What the watcher has not listed itself.
	if err != nil {
		return err
	}
	defer conn.Close()
	fleet := v1.NewFleetServiceClient(conn)
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	for {
		links, complete, err := watcher.List(ctx, fleet)
		if err == nil {
			d.follow(links, complete)
		}
		if err == nil && complete && len(d.following.differ) == 0 {
			return nil
		}
		if d.rest(ctx, pollInterval) != nil {
			return err // Without one the summary says what differs.
		}
	}
}

// follow records what the watcher knows, beside what podlink lists.
func (d *demo) follow(links map[string]watcher.Link, complete bool) {
	f := following{listed: len(links), complete: complete, differ: d.watcher.Differences(links)}
	f.changes, f.resyncs = d.watcher.Counts()
	d.talk.mu.Lock()
	defer d.talk.mu.Unlock()
	for moved, pod := range d.talk.moved {
		if d.watcher.Told(moved.room, moved.epoch, pod) {
			f.told++
		}
	}
	d.following = f
}

// emptied is the promise of the job. The caller must hold the talk's lock.
func (d *demo) emptied() promise {
	r, failed, list := d.relocation, d.talk.failed[relocating], "complete"
	if !r.complete {
		list = "incomplete"
	}
	return promise{
		r.job.GetState() == v1.Job_DONE && r.took <= relocateTimeout && r.links == 0 && r.complete && r.sessions == 0 && failed == 0 &&
			len(d.talk.moved) > 0 && r.back > 0,
		fmt.Sprintf("relocated pod: the job was %s after %.1f s (limit %s) and moved %d links; "+
			"%d links (the list is %s) and %d sessions left, %d failed; %d rooms came after the cordon was lifted",
			r.job.GetState(), r.took.Seconds(), relocateTimeout, r.job.GetDone(), r.links, list, r.sessions, failed, r.back),
	}
}

// followed are the promises of the watch. The caller must hold the talk's lock.
func (d *demo) followed() []promise {
	f, moved := d.following, len(d.talk.moved)
	return []promise{
		{f.told == moved && moved > 0, fmt.Sprintf("watcher: told of %d of the %d rooms that the relocation has moved", f.told, moved)},
		{f.complete && len(f.differ) == 0 && f.listed == d.Rooms, fmt.Sprintf(
			"watcher: %d of %d links differ from podlink's lists after %d changes and %d resyncs", len(f.differ), f.listed, f.changes, f.resyncs)},
	}
}
