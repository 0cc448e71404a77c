package demo

import (
	"context"
	"fmt"
	"time"

	v1 "podlink/api/podlink/v1"
)

// The phases in which no pod fails, and so no room may move.
const (
	podlinkAway  = "podlink away"
	redisAway    = "Redis away"
	twoProcesses = "two processes"
)

const (
	// doubled is the pod that exists twice.
	doubled = 1
	// returnTimeout is how long after the end of an outage a room's next message may stay unanswered.
	returnTimeout = 5 * time.Second
)

// outageTime is the length of an outage: every pod's lease on its rooms ends in it.
func (d *demo) outageTime() time.Duration { return 2 * d.TTL }

// outages runs the phases in which no pod fails: podlink is away, Redis is away, and a pod exists twice.
func (d *demo) outages(ctx context.Context) error {
	if err := d.outage(ctx, podlinkAway, d.takePodlink); err != nil {
		return err
	}
	if d.redis != "" {
		if err := d.outage(ctx, redisAway, d.takeRedis); err != nil {
			return err
		}
	}
	old := d.pods[doubled]
	if err := d.outage(ctx, twoProcesses, d.doublePod); err != nil {
		return err
	}
	d.screen.headline("The first process of %s serves nothing any more. It is stopped (SIGTERM)", podName(doubled))
	if err := old.terminate(ctx); err != nil {
		return err
	}
	return d.rest(ctx, d.Every)
}

// outage runs a phase until each room was answered after its end.
func (d *demo) outage(ctx context.Context, phase string, fault func(ctx context.Context) error) error {
	d.talk.beginOutage(phase)
	if err := fault(ctx); err != nil {
		return err
	}
	end := time.Now()
	if err := d.waitNone(ctx, func() int { return d.talk.unansweredSince(end) }, "were not answered since "+phase); err != nil {
		return err
	}
	d.talk.endOutage(phase, time.Since(end))
	d.screen.headline("All rooms have been answered, by their pods")
	return d.rest(ctx, d.Every)
}

// takePodlink takes podlink away for a while. Without Redis it has its data in memory, and is frozen instead of killed.
func (d *demo) takePodlink(ctx context.Context) error {
	if d.redis == "" {
		d.screen.headline("podlink is frozen (SIGSTOP) for %s. For up to %s the pods know that their rooms are theirs", d.outageTime(), d.TTL)
		if err := d.podlinkServer.freeze(); err != nil {
			return err
		}
		if err := d.rest(ctx, d.outageTime()); err != nil {
			return err
		}
		if err := d.podlinkServer.thaw(); err != nil {
			return err
		}
		return d.awaitPodlink(ctx)
	}
	d.podlinkServer.kill()
	d.screen.headline("podlink was killed (kill -9) for %s. For up to %s the pods know that their rooms are theirs", d.outageTime(), d.TTL)
	if err := d.rest(ctx, d.outageTime()); err != nil {
		return err
	}
	return d.launchPodlink(ctx)
}

// takeRedis takes Redis away for a while.
func (d *demo) takeRedis(ctx context.Context) error {
	d.redisServer.kill()
	d.screen.headline("Redis was killed (kill -9) for %s", d.outageTime())
	if err := d.rest(ctx, d.outageTime()); err != nil {
		return err
	}
	if err := d.launchRedis(ctx); err != nil {
		return err
	}
	return d.awaitPodlink(ctx)
}

// doublePod starts a second process of a pod that lives, and waits until podlink knows that one as the pod.
func (d *demo) doublePod(ctx context.Context) error {
	before := d.podReport(ctx, doubled)
	if before == nil {
		return fmt.Errorf("podlink does not know %s", podName(doubled))
	}
	d.screen.headline("A second process of %s starts, though the first one lives: it takes over the pod, and so its rooms", podName(doubled))
	if err := d.launchPod(ctx, doubled, d.double); err != nil {
		return err
	}
	return d.await(ctx, "the second "+podName(doubled)+" does not serve", d.pods[doubled], func(ctx context.Context) bool {
		now := d.podReport(ctx, doubled)
		return now != nil && now.GetInstanceId() != before.GetInstanceId() && now.GetRouting() == v1.Routing_READY
	})
}
