package demo

import (
	"context"
	"fmt"
	"time"
)

// scenario runs the phases of the demo: steady, kill, freeze, drain, relocation, rolling restart, the outages, and the doors.
func (d *demo) scenario(ctx context.Context) error {
	d.screen.headline("%d rooms start to talk, each every %s", d.Rooms, d.Every)
	if err := d.waitNone(ctx, d.talk.unanswered, "have had no answer yet"); err != nil {
		return err
	}
	d.talk.setPhase("steady")
	d.screen.headline("All rooms have been answered. No faults for %s", d.Steady)
	if err := d.rest(ctx, d.Steady); err != nil {
		return err
	}

	d.talk.setPhase("kill")
	d.pods[2].kill()
	d.screen.headline("chat-2 was killed (kill -9): podlink considers it dead %s after its last report. %d rooms wait",
		d.TTL, d.talk.markGone(2))
	if err := d.waitNone(ctx, d.talk.orphans, "have not been taken over"); err != nil {
		return err
	}
	d.screen.headline("Other pods have taken over all of its rooms. chat-2 restarts")
	if err := d.startPod(ctx, 2); err != nil {
		return err
	}
	if err := d.rest(ctx, d.Every); err != nil {
		return err
	}

	d.talk.setPhase("freeze")
	if err := d.pods[0].freeze(); err != nil {
		return err
	}
	d.screen.headline("chat-0 is frozen (SIGSTOP): calls to it hang until they time out after %s. %d rooms wait",
		sayTimeout, d.talk.markGone(0))
	if err := d.waitNone(ctx, d.talk.orphans, "have not been taken over"); err != nil {
		return err
	}
	d.screen.headline("Other pods have taken over all of its rooms. chat-0 resumes, and believes for a moment that it still owns them")
	if err := d.pods[0].thaw(); err != nil {
		return err
	}
	if err := d.waitServing(ctx, 0, time.Now()); err != nil {
		return err
	}
	if err := d.rest(ctx, d.Every); err != nil {
		return err
	}

	d.talk.setPhase("drain")
	d.screen.headline("chat-1 is stopped (SIGTERM): its sessions continue for %s, then other pods take its rooms", d.Linger)
	if err := d.pods[1].terminate(ctx); err != nil {
		return err
	}
	d.screen.headline("chat-1 has exited, with no rooms left. It restarts")
	if err := d.startPod(ctx, 1); err != nil {
		return err
	}

	if err := d.relocate(ctx); err != nil {
		return err
	}

	d.talk.setPhase("rolling restart")
	for i := range d.pods {
		d.screen.headline("Rolling restart: %s", podName(i))
		if err := d.pods[i].terminate(ctx); err != nil {
			return err
		}
		if err := d.startPod(ctx, i); err != nil {
			return err
		}
	}
	if err := d.rest(ctx, d.Every); err != nil {
		return err
	}
	d.relocation.back = d.talk.on(relocated)
	if err := d.outages(ctx); err != nil {
		return err
	}
	return d.knock(ctx)
}

// waitNone waits until no rooms are left in a state; the error names the state.
func (d *demo) waitNone(ctx context.Context, rooms func() int, state string) error {
	for rooms() > 0 {
		if err := d.rest(ctx, pollInterval); err != nil {
			return fmt.Errorf("%d rooms %s: %w", rooms(), state, err)
		}
	}
	return nil
}

// rest lets the rooms talk for a while.
func (d *demo) rest(ctx context.Context, duration time.Duration) error {
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
