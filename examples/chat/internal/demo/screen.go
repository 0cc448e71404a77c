package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	v1 "podlink/api/podlink/v1"
	"podlink/examples/chat/names"
)

const (
	// refresh is the interval at which the table is redrawn on a terminal. Other outputs get it less often.
	refresh = 500 * time.Millisecond
	// queryTimeout bounds the calls to podlink for one table.
	queryTimeout = 2 * time.Second
)

// screen prints the headlines and a table of the pods, as podlink and the caller see them.
type screen struct {
	d     *demo
	out   io.Writer
	live  bool // the output is a terminal
	begin time.Time
	lines chan string

	height int // of the table on the terminal
	said   map[int32]int
	at     time.Time
}

func newScreen(d *demo) *screen {
	s := &screen{d: d, out: d.Out, begin: time.Now(), lines: make(chan string, 16), said: map[int32]int{}, at: time.Now()}
	if file, ok := d.Out.(*os.File); ok {
		info, err := file.Stat()
		s.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// headline prints the current step of the demo.
func (s *screen) headline(format string, args ...any) {
	s.lines <- fmt.Sprintf("%5.1f s  %s", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

// run redraws the table until ctx ends, and then once more.
func (s *screen) run(ctx context.Context) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case line := <-s.lines:
			s.clear()
			fmt.Fprintln(s.out, line)
			if s.live {
				s.show(ctx)
			}
		case <-tick.C:
			if s.live {
				s.clear()
				s.show(ctx)
			} else if time.Since(s.at) > 4*refresh {
				s.show(ctx)
			}
		case <-ctx.Done():
			s.clear()
			for len(s.lines) > 0 {
				fmt.Fprintln(s.out, <-s.lines)
			}
			s.show(ctx)
			return
		}
	}
}

// clear erases the table from the terminal.
func (s *screen) clear() {
	if s.height > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.height)
		s.height = 0
	}
}

func (s *screen) show(ctx context.Context) {
	text := s.table(ctx)
	fmt.Fprint(s.out, text)
	if s.live {
		s.height = strings.Count(text, "\n")
	}
}

// table formats the pods' reports, their links, and the messages that each pod answers per second.
func (s *screen) table(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout) // The last table is complete too.
	defer cancel()
	reports := map[int32]*v1.Pod{}
	of := &v1.GetServiceStateRequest{Namespace: names.Namespace, Service: names.Service}
	if reply, err := s.d.client.GetServiceState(ctx, of); err == nil {
		for _, p := range reply.GetPods() {
			reports[p.GetPodId()] = p
		}
	}
	links := map[int32]int{}
	for first := 0; first < len(s.d.talk.rooms); first += 1000 {
		var uids []string
		for _, r := range s.d.talk.rooms[first:min(first+1000, len(s.d.talk.rooms))] {
			uids = append(uids, r.name)
		}
		reply, err := s.d.client.BatchGetLinkedPod(ctx, &v1.BatchGetLinkedPodRequest{
			Namespace: names.Namespace, Service: names.Service, Uids: uids,
		})
		if err != nil {
			continue
		}
		for _, group := range reply.GetPods() {
			links[group.GetPodId()] += len(group.GetUids())
		}
	}
	elapsed := time.Since(s.at).Seconds()
	s.at = time.Now()

	var text bytes.Buffer
	rows := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(rows, "\tpod\tprocess\tlive\trouting\tload\tlinks\tmessages/s\t")
	s.d.mu.Lock()
	processes := s.d.pods
	s.d.mu.Unlock()
	s.d.talk.mu.Lock()
	defer s.d.talk.mu.Unlock()
	for i, p := range processes {
		id, process, live := int32(i), "down", "no"
		if p != nil && p.running() {
			process = "up"
		}
		if reports[id].GetLive() {
			live = "yes"
		}
		fmt.Fprintf(rows, "\t%s\t%s\t%s\t%s\t%d\t%d\t%.0f\t\n", podName(i), process, live, reports[id].GetRouting(), reports[id].GetLoad(),
			links[id], float64(s.d.talk.said[id]-s.said[id])/elapsed)
		s.said[id] = s.d.talk.said[id]
	}
	failed := 0
	for _, n := range s.d.talk.failed {
		failed += n
	}
	_ = rows.Flush() // A bytes.Buffer can't fail.
	fmt.Fprintf(&text, "         %d rooms wait for a takeover, %d other messages failed\n", len(s.d.talk.orphaned), failed)
	return text.String()
}
