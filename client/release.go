package client

import (
	"context"
	"net/http"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

const (
	// releaseKeep is how long the links last that earlier processes have left behind: for a request that is on its way to the pod.
	releaseKeep = time.Minute
	// releaseRetry is the time between two attempts to ask for their release.
	releaseRetry = time.Minute
)

// releaseEarlier asks podlink to release the links that earlier processes of the pod have claimed, once the pod has run for ReleaseAfter:
// a process that has died could not, and nobody has come back since for whom the link was claimed again.
func (a *Agent) releaseEarlier(ctx context.Context) {
	if a.options.ReleaseAfter < 0 || !pauseUntil(ctx, time.Now().Add(a.options.ReleaseAfter)) {
		return
	}
	state, err := a.lease.wait(ctx, func(s leaseState) bool { return s.generation != 0 || s.superseded })
	for logged := false; err == nil && !state.superseded && !a.isDraining(); logged = true {
		failure := a.askRelease(ctx, state.generation)
		if failure == nil || ctx.Err() != nil {
			return
		}
		if refusesRelease(failure) {
			a.log.Warnf("pod %d of %s: the links that earlier processes have left are not released: %v", a.pod, a.service, failure)
			return
		}
		if !logged {
			a.log.Warnf("pod %d of %s: asking for the release of links that earlier processes have left failed, retrying: %v",
				a.pod, a.service, failure)
		}
		if !pauseUntil(ctx, time.Now().Add(releaseRetry)) {
			return
		}
		state, _ = a.lease.state()
	}
}

// askRelease asks once. However often it is carried out, there is one job for this process.
func (a *Agent) askRelease(ctx context.Context, generation int64) error {
	ctx, cancel := context.WithTimeout(ctx, a.client.timeout)
	defer cancel()
	_, err := a.client.jobs.CreateJob(ctx, &v1.CreateJobRequest{
		Namespace: a.namespace, Service: a.service, PodId: &a.pod, Kind: v1.Job_RELEASE, BelowGeneration: generation,
		KeepSeconds: keepSeconds(releaseKeep), RequestId: a.reporter.instance.id, Reason: "left by earlier processes of the pod",
	})
	return err
}

// refusesRelease reports whether podlink would answer the same to the same request again: it may not ask, or podlink can't do that.
func refusesRelease(err error) bool {
	switch kerrors.Code(err) {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusNotImplemented:
		return true
	default:
		return false
	}
}
