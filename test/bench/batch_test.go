//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"podlink/internal/biz"
)

// fewCallers is enough to keep Redis busy with batches.
const fewCallers = 16

// TestBatches compares the cost of a uid in a batch and alone, in the data layer.
func TestBatches(t *testing.T) {
	const perSecond, cheaper, clientCPU, columns = 0, 1, 2, 3
	crowds := []int{1, fewCallers}
	table := &Table{
		ID: "batch-data", Title: "Batches in the data layer",
		Note: "Uids that podlink's data layer looks up per second, and how much cheaper each is than with its own Get; " +
			"from one caller, and from several at once.",
	}
	for _, callers := range crowds {
		for _, column := range []string{"uids/s", "times cheaper", "client's CPU per uid, µs"} {
			table.Columns = append(table.Columns, fmt.Sprintf("from %d: %s", callers, column))
		}
	}
	r := newRig(t)
	r.stand(t)
	sizes := []int{1, 10, 100, 1000}
	rivals := make([]rival, len(sizes))
	for i, size := range sizes {
		rivals[i] = rival{name: fmt.Sprintf("BatchGet of %d", size), call: func(ctx context.Context, n int) error {
			first := n * size % users
			links, err := r.links.BatchGet(ctx, namespace, service, uids[first:first+size])
			if err != nil {
				return err
			}
			return linkExists(links[size-1].Link, links[size-1].Err)
		}}
	}
	rivals[0] = rival{name: "Get", call: func(ctx context.Context, n int) error {
		return linkExists(r.links.Get(ctx, linkOf(uid(n))))
	}}
	for run := range runs {
		for group, callers := range crowds {
			progress(run, "batches in the data layer from %d callers", callers)
			all := compare(t, steady(), callers, rivals...)
			for i, m := range all {
				size := float64(sizes[i])
				table.add(rivals[i].name, group*columns+perSecond, m.rate()*size)
				table.add(rivals[i].name, group*columns+clientCPU, m.microseconds()/size)
				if i > 0 {
					table.add(rivals[i].name, group*columns+cheaper, m.rate()*size/all[0].rate())
				}
			}
		}
	}
	results.tables(table)
}

// TestLists measures lists of a uid's links and of a service's pods.
func TestLists(t *testing.T) {
	const perSecond, perEntry, p50 = 0, 1, 2
	table := &Table{
		ID: "batch-lists", Title: "Lists in the data layer",
		Note:    fmt.Sprintf("From %d callers.", fewCallers),
		Columns: []string{"calls/s", "entries/s", "p50, ms"},
	}
	r := newRig(t)
	var rivals []rival
	var sizes []int
	for _, size := range []int{1, 10, 100} {
		prefix := fmt.Sprintf("%d-", size)
		populate(t, r.plain, size*users/100, func(pipe redis.Pipeliner, n int) {
			pipe.HSet(t.Context(), podlinkKey(prefix+user(n/size)), fmt.Sprintf("service-%d", n%size), value(podOf(n)))
		})
		sizes = append(sizes, size)
		rivals = append(rivals, rival{
			name: fmt.Sprintf("links of a uid, %d", size),
			call: func(ctx context.Context, n int) error {
				links, err := r.links.List(ctx, namespace, prefix+user(n%(users/100)))
				return complete(len(links), size, err)
			},
		})
	}
	for _, size := range []int{10, 100, 1000} {
		game := biz.ServiceKey{Namespace: namespace, Service: fmt.Sprintf("service-%d", size)}
		r.report(t, game.Service, size)
		sizes = append(sizes, size)
		rivals = append(rivals, rival{
			name: fmt.Sprintf("pods of a service, %d", size),
			call: func(ctx context.Context, _ int) error {
				pods, err := r.pods.List(ctx, game)
				return complete(len(pods), size, err)
			},
		})
	}
	for run := range runs {
		progress(run, "lists in the data layer")
		for i, m := range compare(t, steady(), fewCallers, rivals...) {
			table.add(rivals[i].name, perSecond, m.rate())
			table.add(rivals[i].name, perEntry, m.rate()*float64(sizes[i]))
			table.add(rivals[i].name, p50, m.percentiles(.5)[0])
		}
	}
	results.tables(table)
}

// complete returns an error unless a list has the expected length.
func complete(length, want int, err error) error {
	if err == nil && length != want {
		err = fmt.Errorf("%d entries instead of %d", length, want)
	}
	return err
}
