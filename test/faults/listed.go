//go:build faults

package faults

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// listPage is the size of the pages that are read: so small that a list has several.
const listPage = 700

// stored is a link as the store or a list has it.
type stored struct {
	pod   int32
	epoch int64
}

// truthOf reads all links of the service from the store's primaries, by the layout of docs/data-model.md.
func truthOf(t testing.TB, primaries []*redis.Client) map[string]stored {
	t.Helper()
	const prefix = "podlink:link:" + namespace + ":"
	truth := make(map[string]stored)
	ctx := context.Background()
	for _, primary := range primaries {
		now, err := primary.Time(ctx).Result()
		require.NoError(t, err)
		for cursor := uint64(0); ; {
			var keys []string
			keys, cursor, err = primary.Scan(ctx, cursor, prefix+"*", 1000).Result()
			require.NoError(t, err)
			for uid, value := range fieldsOf(t, primary, keys) {
				if l, stands := decodeLink(t, value, now); stands {
					truth[strings.TrimPrefix(uid, prefix)] = l
				}
			}
			if cursor == 0 {
				break
			}
		}
	}
	return truth
}

// fieldsOf returns the service's field of each key that has it.
func fieldsOf(t testing.TB, primary *redis.Client, keys []string) map[string]string {
	t.Helper()
	values := make(map[string]string, len(keys))
	ctx := context.Background()
	replies, _ := primary.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.HGet(ctx, key, listedService)
		}
		return nil
	})
	for i, reply := range replies {
		value, err := reply.(*redis.StringCmd).Result()
		if err == redis.Nil { //nolint:errorlint // The driver returns it as it is.
			continue
		}
		require.NoError(t, err)
		values[keys[i]] = value
	}
	return values
}

// decodeLink returns the link of a field, and whether it stands.
func decodeLink(t testing.TB, value string, now time.Time) (l stored, stands bool) {
	t.Helper()
	words := strings.Fields(value)
	require.GreaterOrEqual(t, len(words), 3, value)
	pod, podErr := strconv.ParseInt(words[0], 10, 32)
	epoch, epochErr := strconv.ParseInt(words[1], 10, 64)
	expiry, expiryErr := strconv.ParseInt(words[2], 10, 64)
	require.NoError(t, podErr)
	require.NoError(t, epochErr)
	require.NoError(t, expiryErr)
	return stored{int32(pod), epoch}, expiry == 0 || expiry > now.UnixMilli()
}

// listing is what the lists of all pods say.
type listing struct {
	links    map[string]stored
	complete bool
	pages    int
	broken   []string
}

// listAll reads the lists of all pods, over all pages.
func listAll(conn *grpc.ClientConn) (listing, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	fleet := v1.NewFleetServiceClient(conn)
	l := listing{links: make(map[string]stored), complete: true}
	counts, err := fleet.CountPodLinks(ctx, &v1.CountPodLinksRequest{Namespace: namespace, Service: listedService})
	if err != nil {
		return l, err
	}
	l.complete = counts.GetComplete()
	pods := make(map[int32]bool, listedPods)
	for pod := range int32(listedPods) {
		pods[pod] = true
	}
	for _, count := range counts.GetCounts() {
		pods[count.GetPodId()] = true
	}
	for pod := range pods {
		if err := l.walk(ctx, fleet, pod); err != nil {
			return l, err
		}
	}
	return l, nil
}

// walk reads the list of a pod.
func (l *listing) walk(ctx context.Context, fleet v1.FleetServiceClient, pod int32) error {
	for token := ""; ; {
		page, err := fleet.ListPodLinks(ctx, &v1.ListPodLinksRequest{
			Namespace: namespace, Service: listedService, PodId: &pod, PageSize: listPage, PageToken: token,
		})
		if err != nil {
			return err
		}
		l.pages++
		for _, link := range page.GetLinks() {
			if link.GetPodId() != pod {
				l.broken = append(l.broken, fmt.Sprintf("the list of pod %d has %s of pod %d", pod, link.GetUid(), link.GetPodId()))
			}
			if other, found := l.links[link.GetUid()]; found && other.pod != pod {
				l.broken = append(l.broken, fmt.Sprintf("%s is on the lists of pods %d and %d", link.GetUid(), other.pod, pod))
			}
			l.links[link.GetUid()] = stored{pod, link.GetEpoch()}
		}
		if token = page.GetNextPageToken(); token == "" {
			l.complete = l.complete && page.GetComplete()
			return nil
		}
	}
}

// readLinks reads the links of uids.
func readLinks(conn *grpc.ClientConn, uids []string) ([]*v1.Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	var links []*v1.Link
	for len(uids) > 0 {
		request := &v1.BatchVerifyLinkedPodRequest{Namespace: namespace, Service: listedService, PodId: new(int32)}
		for _, uid := range uids[:min(batch, len(uids))] {
			request.Items = append(request.Items, &v1.BatchVerifyLinkedPodRequest_Item{Uid: uid})
		}
		reply, err := v1.NewLinkServiceClient(conn).BatchVerifyLinkedPod(ctx, request)
		if err != nil {
			return nil, err
		}
		if problems := reply.GetProblems(); len(problems) > 0 {
			return nil, fmt.Errorf("%s: %s", problems[0].GetReason(), problems[0].GetMessage())
		}
		links = append(links, reply.GetLinks()...)
		uids = uids[len(request.GetItems()):]
	}
	return links, nil
}
