package demo

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/internal/store"
)

// TestSummaryFindsBrokenPromises: the demo fails on every kind of violation.
func TestSummaryFindsBrokenPromises(t *testing.T) {
	const limit = 3*time.Second + takeoverTimeout
	for name, row := range map[string]struct {
		spoil func(d *demo, r *room)
		want  string
	}{
		"nothing": {func(*demo, *room) {}, ""},
		"answered by another pod": {func(d *demo, r *room) {
			d.talk.answered(r, &chatv1.SayReply{Number: 2, PodId: 1, Epoch: 5})
			d.talk.holders[tenure{r.name, 5}] = 0
			d.talk.record(tenure{r.name, 5}, 0, r)
		}, "by the wrong pod"},
		"a number twice":  {func(d *demo, r *room) { d.talk.answered(r, &chatv1.SayReply{Number: 1, PodId: 0, Epoch: 5}) }, "out of order"},
		"an older epoch":  {func(d *demo, r *room) { d.talk.answered(r, &chatv1.SayReply{Number: 2, PodId: 0, Epoch: 4}) }, "out of order"},
		"never compared":  {func(d *demo, _ *room) { d.talk.checked = 0 }, "checked against"},
		"lost":            {func(_ *demo, r *room) { r.said++ }, "missing from the store"},
		"steady":          {func(d *demo, r *room) { d.talk.fail("steady", r, io.EOF) }, "steady: 1 failed"},
		"elsewhere":       {func(d *demo, r *room) { d.talk.fail("kill", r, io.EOF) }, "1 failed elsewhere"},
		"drain":           {func(d *demo, r *room) { d.talk.fail("drain", r, io.EOF) }, "drained pod: 1 failed"},
		"rolling restart": {func(d *demo, r *room) { d.talk.fail("rolling restart", r, io.EOF) }, "all pods: 1 failed"},
		"in flight when podlink went away": {func(d *demo, r *room) {
			d.talk.beginOutage(podlinkAway)
			d.talk.fail("rolling restart", r, io.EOF)
			d.talk.endOutage(podlinkAway, 0)
		}, ""},
		"never frozen":     {func(d *demo, _ *room) { delete(d.talk.longest, "freeze") }, "frozen pod"},
		"too long":         {func(d *demo, _ *room) { d.talk.longest["kill"] = limit + 1 }, "killed pod"},
		"never taken over": {func(d *demo, r *room) { d.talk.orphaned[r] = true }, "killed pod"},
		"two at one time":  {func(d *demo, r *room) { openRoom(t, d.rooms, r.name, 5, "chat-0 again") }, "1 times two processes"},
		"moved without podlink": {func(d *demo, r *room) {
			d.talk.beginOutage(podlinkAway)
			d.talk.answered(r, &chatv1.SayReply{Number: 2, PodId: 1, Epoch: 6})
			d.talk.endOutage(podlinkAway, 0)
			r.said--
		}, "podlink away for 6s: 1 users of living pods moved"},
		"moved while Redis was away": {func(d *demo, _ *room) { d.talk.outages[redisAway].moved++ }, "Redis away for 6s: 1 users"},
		"moved by a second process":  {func(d *demo, _ *room) { d.talk.outages[twoProcesses].moved++ }, "a second process of chat-1: 1 users"},
		"an outage that did not end": {func(d *demo, _ *room) { d.talk.outages[redisAway].over = false }, "Redis away"},
		"no outage":                  {func(d *demo, _ *room) { delete(d.talk.outages, podlinkAway) }, "podlink away"},
		"relocation":                 {func(d *demo, r *room) { d.talk.fail(relocating, r, io.EOF) }, "1 failed; 1 rooms came"},
		"a job that failed":          {func(d *demo, _ *room) { d.relocation.job.State = v1.Job_FAILED }, "the job was FAILED"},
		"no job":                     {func(d *demo, _ *room) { d.relocation.job = nil }, "relocated pod"},
		"a slow job":                 {func(d *demo, _ *room) { d.relocation.took = relocateTimeout + 1 }, "relocated pod"},
		"a link left":                {func(d *demo, _ *room) { d.relocation.links = 1 }, "1 links (the list is complete)"},
		"links not listed":           {func(d *demo, _ *room) { d.relocation.complete = false }, "0 links (the list is incomplete)"},
		"a session left":             {func(d *demo, _ *room) { d.relocation.sessions = 1 }, "1 sessions left"},
		"no rooms afterwards":        {func(d *demo, _ *room) { d.relocation.back = 0 }, "0 rooms came"},
		"nothing relocated":          {func(d *demo, _ *room) { clear(d.talk.moved) }, "relocated pod"},
		"a move not told":            {func(d *demo, _ *room) { d.following.told = 0 }, "told of 0 of the 1 rooms"},
		"a link not known":           {func(d *demo, r *room) { d.following.differ = []string{r.name} }, "1 of 1 links differ"},
		"a room not listed":          {func(d *demo, _ *room) { d.following.listed = 0 }, "0 of 0 links differ"},
		"lists not complete":         {func(d *demo, _ *room) { d.following.complete = false }, "0 of 1 links differ"},
		"let in":                     {func(d *demo, _ *room) { d.letIn = []string{"a stranger"} }, "1 not refused; a stranger"},
		"never tried":                {func(d *demo, _ *room) { d.tries = 0 }, "access: 0 attempts"},
		"unanswered after an outage": {func(d *demo, _ *room) { d.talk.outages[podlinkAway].within = time.Minute }, "podlink away"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &demo{
				Options: Options{Rooms: 1, TTL: 3 * time.Second, Out: io.Discard}, redis: "there", rooms: store.New(),
				talk:  newTalk(nil, nil, 1, time.Second),
				doors: &doors{}, tries: 8,
				relocation: relocation{job: &v1.Job{State: v1.Job_DONE}, took: relocateTimeout, complete: true, back: 1},
				following:  following{told: 1, listed: 1, complete: true},
			}
			r := d.talk.rooms[0]
			openRoom(t, d.rooms, r.name, 5, "chat-0")
			_, err := d.rooms.AppendMessage(t.Context(), &chatv1.AppendMessageRequest{
				Room: r.name, Epoch: 5, Process: "chat-0", Id: messageID(1),
			})
			require.NoError(t, err)
			d.talk.answered(r, &chatv1.SayReply{Number: 1, PodId: 0, Epoch: 5})
			d.talk.record(tenure{r.name, 5}, 0, r)
			d.talk.longest["kill"], d.talk.longest["freeze"] = limit, sayTimeout
			d.talk.moved[tenure{r.name, 5}] = 0
			for _, phase := range []string{podlinkAway, redisAway, twoProcesses} {
				d.talk.beginOutage(phase)
				d.talk.fail(phase, r, io.EOF)
				d.talk.endOutage(phase, returnTimeout)
			}
			row.spoil(d, r)
			var broken []string
			for _, p := range d.promises() {
				if !p.kept {
					broken = append(broken, p.text)
				}
			}
			if row.want == "" {
				require.Empty(t, broken)
				require.NoError(t, d.summary(time.Second))
				return
			}
			require.Condition(t, func() bool {
				for _, text := range broken {
					if strings.Contains(text, row.want) {
						return true
					}
				}
				return false
			}, "%q is not among %q", row.want, broken)
			require.Error(t, d.summary(time.Second))
		})
	}
}

func openRoom(t *testing.T, s *store.Store, room string, epoch int64, process string) {
	t.Helper()
	_, err := s.OpenRoom(t.Context(), &chatv1.OpenRoomRequest{Room: room, Epoch: epoch, Process: process})
	if process == "chat-0" {
		require.NoError(t, err)
	}
}

// TestMissing: a message at another place counts, and so does a duplicate.
func TestMissing(t *testing.T) {
	for name, row := range map[string]struct {
		stored []string
		said   int64
		want   int
	}{
		"all":         {[]string{"message-1", "message-2"}, 2, 0},
		"one more":    {[]string{"message-1", "message-2"}, 1, 0},
		"one fewer":   {[]string{"message-1"}, 2, 1},
		"other order": {[]string{"message-2", "message-1"}, 2, 2},
		"twice":       {[]string{"message-1", "message-2", "message-2"}, 2, 1},
		"none":        {nil, 3, 3},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.want, missing(row.stored, row.said)) })
	}
}
