package demo

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// promise is a line of the summary: what podlink promises, with the measured figures.
type promise struct {
	kept bool
	text string
}

// summary prints each promise, kept or broken. A broken one is an error.
func (d *demo) summary(took time.Duration) error {
	promises := d.promises()
	fmt.Fprintf(d.Out, "\nAfter %.0f s:\n", took.Seconds())
	kept := true
	for _, p := range promises {
		mark := "kept   "
		if !p.kept {
			mark, kept = "BROKEN ", false
		}
		fmt.Fprintf(d.Out, "  %s%s\n", mark, p.text)
	}
	if !kept {
		d.talk.mu.Lock()
		defer d.talk.mu.Unlock()
		for _, text := range d.talk.wrong[:min(len(d.talk.wrong), 10)] {
			fmt.Fprintln(d.Out, "  ", text)
		}
		return errors.Join(errors.New("a promise was broken"), d.talk.last)
	}
	return nil
}

func (d *demo) promises() []promise {
	refused, shared := d.rooms.Refused()
	d.talk.mu.Lock()
	defer d.talk.mu.Unlock()
	t := d.talk
	said, lost := 0, 0
	for _, n := range t.said {
		said += n
	}
	for _, r := range t.rooms {
		lost += missing(d.rooms.IDs(r.name), r.said)
	}
	promises := []promise{
		{len(t.wrong) == 0 && t.checked > said*9/10, fmt.Sprintf(
			"%d messages answered; %d checked against podlink's link, %d answered by the wrong pod or out of order", said, t.checked, len(t.wrong))},
		{lost == 0, fmt.Sprintf("%d answered messages missing from the store, out of order or stored twice", lost)},
		{t.failed["steady"] == 0, fmt.Sprintf("steady: %d failed", t.failed["steady"])},
		d.takeover("kill", "killed pod", d.TTL+takeoverTimeout),
		d.takeover("freeze", "frozen pod", max(d.TTL, d.Every+sayTimeout)+takeoverTimeout),
		{t.failed["drain"] == 0, fmt.Sprintf("drained pod: %d failed", t.failed["drain"])},
		d.emptied(),
		{t.failed["rolling restart"] == 0, fmt.Sprintf("rolling restart of all pods: %d failed", t.failed["rolling restart"])},
		d.stays(podlinkAway, "podlink away for "+d.outageTime().String()),
	}
	if d.redis != "" {
		promises = append(promises, d.stays(redisAway, "Redis away for "+d.outageTime().String()))
	}
	if d.doors != nil {
		promises = append(promises, d.refusals())
	}
	promises = append(promises, d.stays(twoProcesses, "a second process of "+podName(doubled)))
	promises = append(promises, d.followed()...)
	return append(promises,
		promise{shared == 0, fmt.Sprintf(
			"%d times two processes held a room with the same epoch (%d calls from previous owners refused)", shared, refused)},
	)
}

// stays is the promise of an outage: no room moves. The caller must hold the talk's lock.
func (d *demo) stays(phase, what string) promise {
	o, limit := d.talk.outages[phase], d.Every+returnTimeout
	if o == nil {
		o = &outage{}
	}
	return promise{
		o.over && o.moved == 0 && o.within <= limit,
		fmt.Sprintf("%s: %d users of living pods moved; "+
			"all rooms were answered within %.1f s afterwards (limit %s; %d attempts failed until then)",
			what, o.moved, o.within.Seconds(), limit, d.talk.attempts[phase]),
	}
}

// takeover is the promise of a phase in which a pod was gone. The caller must hold the talk's lock.
func (d *demo) takeover(phase, pod string, limit time.Duration) promise {
	t := d.talk
	return promise{
		t.failed[phase] == 0 && len(t.orphaned) == 0 && t.longest[phase] > 0 && t.longest[phase] <= limit,
		fmt.Sprintf("%s: other pods took over its rooms within %.1f s (limit %s; %d attempts failed until then), %d failed elsewhere",
			pod, t.longest[phase].Seconds(), limit, t.attempts[phase], t.failed[phase]),
	}
}

// missing counts the first n messages that are not at their place in the store, and the duplicates.
func missing(stored []string, n int64) int {
	count := 0
	for i := range n {
		if i >= int64(len(stored)) || stored[i] != messageID(i+1) {
			count++
		}
	}
	sorted := slices.Sorted(slices.Values(stored))
	return count + len(sorted) - len(slices.Compact(slices.Clone(sorted)))
}
