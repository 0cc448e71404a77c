package telemetry

import (
	"github.com/go-kratos/kratos/v2/log"
	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/biz"
)

// Jobs hears of jobs: it is the jobs.Observer. It collects their metrics for Prometheus, and logs when this podlink begins and leaves
// one.
type Jobs struct {
	log     *log.Helper
	running prometheus.Gauge
	ended   *prometheus.CounterVec
	links   *prometheus.CounterVec
}

// The values of the label outcome of podlink_job_links_total.
const (
	jobDone    = "done"
	jobSkipped = "skipped"
	jobFailed  = "failed"
)

// jobStates are the values of the label state of podlink_jobs_left_total. RUNNING is a job that another podlink goes on with.
var jobStates = []biz.JobState{biz.JobDone, biz.JobCancelled, biz.JobFailed, biz.JobRunning}

// NewJobs returns the observer.
func NewJobs(logger log.Logger) *Jobs {
	return &Jobs{
		log:     log.NewHelper(log.With(logger, "module", "jobs")),
		running: gauge("podlink_jobs_running", "Jobs that this podlink runs."),
		ended:   counters("podlink_jobs_left_total", "Jobs that this podlink has run, by their state then.", "state", jobStates),
		links: counters("podlink_job_links_total", "Links that jobs have worked on in this podlink, by outcome.",
			"outcome", []string{jobDone, jobSkipped, jobFailed}),
	}
}

// Describe implements prometheus.Collector.
func (j *Jobs) Describe(descriptions chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(j, descriptions)
}

// Collect implements prometheus.Collector.
func (j *Jobs) Collect(metrics chan<- prometheus.Metric) {
	j.running.Collect(metrics)
	j.ended.Collect(metrics)
	j.links.Collect(metrics)
}

// Taken implements jobs.Observer.
func (j *Jobs) Taken(job biz.Job) {
	j.running.Inc()
	j.log.Infow(log.DefaultMessageKey, "this podlink runs a job", "job", job.Key.ID, "kind", string(job.Spec.Kind),
		"namespace", job.Key.Namespace, "service", job.Spec.Service)
}

// Left implements jobs.Observer.
func (j *Jobs) Left(job biz.Job, cause error) {
	j.running.Dec()
	j.ended.WithLabelValues(string(job.State)).Inc()
	line := []any{log.DefaultMessageKey, "this podlink no longer runs a job", "job", job.Key.ID, "state", string(job.State),
		"done", job.Progress.Done, "skipped", job.Progress.Skipped, "failed", job.Progress.Failed}
	if cause != nil {
		line = append(line, "cause", cause.Error())
	}
	if job.State == biz.JobFailed {
		j.log.Warnw(line...)
		return
	}
	j.log.Infow(line...)
}

// Stepped implements jobs.Observer.
func (j *Jobs) Stepped(_ biz.JobKind, done, skipped, failed int) {
	j.links.WithLabelValues(jobDone).Add(float64(done))
	j.links.WithLabelValues(jobSkipped).Add(float64(skipped))
	j.links.WithLabelValues(jobFailed).Add(float64(failed))
}
