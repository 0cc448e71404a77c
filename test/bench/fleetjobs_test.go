//go:build bench

package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// relocateRate is the fleet.job_rate of the measured job.
const relocateRate = 20_000

// TestFleetRelocate measures a RELOCATE of a pod with many links to ten others. `make test-fleet` proves that it loses nobody.
func TestFleetRelocate(t *testing.T) {
	links := 100_000
	if quick {
		links = 5000
	}
	const took, moved, podlinkCPU, redisCPU = 0, 1, 2, 3
	row := fmt.Sprintf("%d links", links)
	table := &Table{
		ID: "fleet-relocate", Title: "RELOCATE of a pod",
		Note: fmt.Sprintf("fleet.job_rate %d, no grace. A job ends at least ten seconds after the cordon, as links that were made a moment "+
			"before it have to be in the index.", relocateRate),
		Columns: []string{"until the end, s", "until no link is left, s", "podlink's CPU per link, µs", "Redis' CPU per link, µs"},
	}
	for run := range runs {
		progress(run, "a pod is relocated")
		redis := redistest.Start(t)
		client := redis.Client(t)
		putOnPod(t, client, links)
		podlink := podlinktest.Start(t, binary, append(podlinktest.OnRedis("standalone", redis.Addr()),
			fmt.Sprintf("PODLINK_FLEET_JOB_RATE=%d", relocateRate))...)
		podlink.WaitReady(t)
		conn, pid := podlink.Conn(t), redisPID(t, redis)
		for pod := range int32(11) {
			_, err := v1.NewStateServiceClient(conn).SetServiceState(t.Context(), &v1.SetServiceStateRequest{
				Namespace: namespace, Service: service, PodId: &pod, State: "up", TtlSeconds: proto.Int32(86_400),
			})
			require.NoError(t, err)
		}
		spent := cpu{server: -cpuTime(t, podlink.PID()), redis: -cpuTime(t, pid)}
		job, empty := relocated(t, v1.NewFleetServiceClient(conn), client)
		spent.server += cpuTime(t, podlink.PID())
		spent.redis += cpuTime(t, pid)
		require.EqualValues(t, links, job.GetDone())
		began := job.GetStartTime().AsTime()
		table.add(row, took, job.GetEndTime().AsTime().Sub(began).Seconds())
		table.add(row, moved, empty.Sub(began).Seconds())
		table.add(row, podlinkCPU, float64(spent.server)/float64(time.Microsecond)/float64(links))
		table.add(row, redisCPU, float64(spent.redis)/float64(time.Microsecond)/float64(links))
		require.Zero(t, podlink.Stop(t))
		redis.Kill()
	}
	results.tables(table)
	results.target(Target{
		Measure: fmt.Sprintf("RELOCATE of %d links, fleet.job_rate %d", links, relocateRate),
		Limit:   20, Unit: "s", Runs: table.row(row).Cells[took],
	})
}

// putOnPod stores claimed links to the first pod, with its index.
func putOnPod(t *testing.T, client *redis.Client, links int) {
	t.Helper()
	ctx, suffix := t.Context(), namespace+":"+service
	populate(t, client, links, func(pipe redis.Pipeliner, n int) {
		pipe.HSet(ctx, podlinkKey(user(n)), service, value(0)+" "+epoch)
		pipe.HSet(ctx, "podlink:index:"+suffix+":0", user(n), epoch)
	})
	require.NoError(t, client.SAdd(ctx, "podlink:indexed:"+suffix, 0).Err())
	require.NoError(t, client.SAdd(ctx, "podlink:services", suffix).Err())
	require.NoError(t, client.HSet(ctx, "podlink:fleet", "covered", 1).Err())
}

// relocated runs the job on the first pod, and returns it when it has ended, and when the pod had no link any more.
func relocated(t *testing.T, fleet v1.FleetServiceClient, client *redis.Client) (job *v1.Job, empty time.Time) {
	t.Helper()
	created, err := fleet.CreateJob(t.Context(), &v1.CreateJobRequest{
		Namespace: namespace, Service: service, PodId: proto.Int32(0), Kind: v1.Job_RELOCATE,
	})
	require.NoError(t, err)
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		left, err := client.Exists(t.Context(), "podlink:index:"+namespace+":"+service+":0").Result()
		require.NoError(t, err)
		if left == 0 && empty.IsZero() {
			empty = time.Now()
		}
		reply, err := fleet.GetJob(t.Context(), &v1.GetJobRequest{Namespace: namespace, Job: created.GetJob().GetId()})
		require.NoError(t, err)
		if job = reply.GetJob(); job.GetEndTime() != nil {
			require.Equal(t, v1.Job_DONE, job.GetState(), job.GetError())
			return job, empty
		}
		require.Less(t, time.Since(began), 5*time.Minute, "%s", job)
	}
}
