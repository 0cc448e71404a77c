package client

import (
	"context"

	v1 "podlink/api/podlink/v1"
)

// Cordoned returns the cordon that an operator has set for the pod, as podlink's last answer shows it; READY: there is none.
// While there is one, no new users are linked to the pod; it hands its sessions over as in a drain, starts none, and goes on
// serving. After the cordon is lifted it takes new users again.
func (a *Agent) Cordoned() v1.Routing {
	state, _ := a.lease.state()
	return state.cordon
}

// followCordon hands the sessions over when the pod is cordoned, until that is lifted or the pod drains.
func (a *Agent) followCordon(ctx context.Context) {
	for {
		state, err := a.lease.wait(ctx, func(s leaseState) bool { return s.cordon != v1.Routing_READY })
		if err != nil || a.isDraining() {
			return
		}
		a.log.Infof("pod %d of %s: cordoned (%s), handing over %d sessions", a.pod, a.service, state.cordon, a.Sessions())
		handing, stop := context.WithTimeout(ctx, a.options.DrainTimeout)
		go a.handOver(handing)
		go func() {
			select {
			case <-a.drainBegun: // It calls OnDrain itself.
				stop()
			case <-handing.Done():
			}
		}()
		_, err = a.lease.wait(ctx, func(s leaseState) bool { return s.cordon == v1.Routing_READY })
		stop()
		if err != nil {
			return
		}
		a.log.Infof("pod %d of %s: not cordoned any more", a.pod, a.service)
	}
}
