package data

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"podlink/internal/biz"
)

// The members of a service's key. docs/data-model.md has the table; lua/lib/pod.lua reads and writes them.
const (
	lowestReport = -(1<<31 + 1) // score of the report of the largest pod
	metaScore    = -1
	scoreRange   = 1 << 41 // entries of pods that take new links have a burden below it, others one above
	noInstance   = "*"
	noText       = "-" // for an address or labels
	maxTime      = 999_999_999_999_999
	maxFenced    = int64(biz.MaxGeneration)
)

// optional returns the text, or none if it is empty.
func optional(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// labelsOf returns labels as the store has them. They are sorted, so that equal labels are equal texts; adjacent pairs share an
// ampersand.
func labelsOf(labels map[string]string) string {
	return strings.ReplaceAll(strings.Join(labelPairs(labels), ""), "&&", "&")
}

// labelPairs returns the labels as "&name=value&", sorted.
func labelPairs(labels map[string]string) []string {
	pairs := make([]string, 0, len(labels))
	for name, value := range labels {
		pairs = append(pairs, "&"+escape(name)+"="+escape(value)+"&")
	}
	slices.Sort(pairs)
	return pairs
}

// escape replaces every byte of the text that is not printable ASCII, and the characters that have a meaning in members, by a
// percent sign and two digits. The result is printable ASCII without spaces, so that scripts need not check UTF-8.
func escape(text string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c > ' ' && c < 0x7f && c != '%' && c != '&' && c != '=' {
			out.WriteByte(c)
		} else {
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}

// unescape undoes escape. A percent sign without digits remains, and bytes that are not UTF-8 become U+FFFD, because a script
// does not detect either.
func (p *parser) unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] <= ' ' || text[i] >= 0x7f {
			p.fail("an escaped text", text)
		}
		if text[i] == '%' && i+2 < len(text) {
			if b, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				out.WriteByte(byte(b))
				i += 2
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return strings.ToValidUTF8(out.String(), "\uFFFD")
}

func (p *parser) fail(what, text string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %q is not %s", biz.ErrStoreDataCorrupt, text, what)
	}
}

// labels parses "&name=value&name=value&".
func (p *parser) labels(text string) map[string]string {
	if text == noText {
		return nil
	}
	labels := make(map[string]string)
	for pair := range strings.SplitSeq(strings.Trim(text, "&"), "&") {
		name, value, _ := strings.Cut(pair, "=")
		labels[p.unescape(name)] = p.unescape(value)
	}
	return labels
}

func (p *parser) generation(text string) biz.Generation {
	return biz.Generation(p.number(text, 0, maxFenced))
}

// hearing parses "<heard> <resumed> <last> <least> <least_at> <due> <counted> <room>".
func (p *parser) hearing(meta string) biz.Hearing {
	f := strings.Split(meta, " ")
	if len(f) != 8 {
		p.fail("the meta member of a service", meta)
		return biz.Hearing{}
	}
	var n [8]int64
	for i := range f {
		n[i] = p.number(f[i], 0, maxTime)
	}
	return biz.Hearing{Heard: n[0], Resumed: n[1], Last: n[2], Least: n[3], LeastAt: n[4]}
}

// report parses a report, without what depends on the time and the entry.
func (p *parser) report(member string) biz.Pod {
	f := strings.Split(member, " ")
	if len(f) != 17 || slices.Contains(f, "") {
		p.fail("a report", member)
		return biz.Pod{}
	}
	pod := biz.Pod{
		Report: biz.Report{
			Pod:        biz.PodID(p.number(f[0], 0, math.MaxInt32)),
			Load:       int32(p.number(f[1], 0, math.MaxInt32)),
			Routing:    p.routing(f[2]),
			Capacity:   int32(p.number(f[5], int64(biz.NoCapacity), math.MaxInt32)),
			TTL:        biz.TTL(p.number(f[6], int64(biz.Forever), math.MaxInt32)),
			Generation: p.generation(f[9]),
			State:      p.unescape(f[16]),
			Labels:     p.labels(f[14]),
		},
		Cordon: p.routing(f[3]), CordonUntilMs: p.number(f[4], 0, maxTime),
		HeartbeatMs: p.number(f[7], 0, maxTime), HeardMs: p.number(f[8], 0, maxTime),
	}
	if pod.TTL == 0 {
		p.fail("a report", member)
	}
	// The sequence and the predecessor remain stored while a client reports that names no process.
	sequence := p.number(f[10], 0, maxFenced)
	if f[11] != noInstance {
		pod.Instance, pod.Sequence = f[11], sequence
	}
	p.number(f[13], 0, 64)
	if f[15] != noText {
		pod.Address = p.unescape(f[15])
	}
	return pod
}

func (p *parser) routing(text string) biz.Routing {
	return biz.Routing(p.number(text, int64(biz.Ready), int64(biz.Shutdown)))
}

// podAt parses a report and judges it by the meta member at the time now. The burden is empty for a buried pod.
func (p *parser) podAt(now, meta, member, burden string) biz.Pod {
	pod := p.report(member)
	if burden != "" {
		pod.Given = p.number(burden, int64(pod.Load), scoreRange-1) - int64(pod.Load)
	}
	view := biz.PodsView{Pods: []biz.Pod{pod}, Hearing: p.hearing(meta)}
	view.Judge(p.number(now, 0, maxTime))
	return view.Pods[0]
}

// parseView parses members with their scores: reports, the meta member and entries. If they were not read at once, an entry may
// be of another report.
func parseView(values []any, paged bool) (biz.PodsView, error) {
	var p parser
	view := biz.PodsView{}
	index := make(map[biz.PodID]int)
	for i := 0; i+1 < len(values); i += 2 {
		member, _ := values[i].(string)
		score := p.score(values[i+1])
		switch {
		case score < metaScore:
			pod := p.report(member)
			if int64(pod.Pod) != -score-2 {
				p.fail("the report of this pod", member)
			}
			index[pod.Pod] = len(view.Pods)
			view.Pods = append(view.Pods, pod)
		case score == metaScore:
			view.Hearing = p.hearing(member)
		default:
			id, _, _ := strings.Cut(member, " ")
			number, err := strconv.ParseInt(id, 10, 32)
			at, ok := index[biz.PodID(number)]
			if err != nil || !ok || !strings.HasPrefix(member, entryPrefix(view.Pods[at])) {
				if !paged || err != nil {
					p.fail("the entry of a report", member)
				}
				break
			}
			pod := &view.Pods[at]
			if pod.Given = score%scoreRange - int64(pod.Load); pod.Given < 0 {
				p.fail("the entry of a report", member)
			}
		}
		if p.err != nil {
			return biz.PodsView{}, p.err
		}
	}
	slices.Reverse(view.Pods) // By score, the largest pod is the first.
	return view, p.err
}

// entryPrefix returns the entry of a report, without the number of its set of labels.
func entryPrefix(pod biz.Pod) string {
	return fmt.Sprintf("%010d %d %d %d %d %d ", pod.Pod, pod.Load, pod.Capacity, pod.TTL, pod.HeartbeatMs, pod.HeardMs)
}

func pairs(values []any) [][]any {
	all := make([][]any, len(values))
	for i, value := range values {
		all[i], _ = value.([]any)
	}
	return all
}

// score returns a score, which is a text with RESP2 and a number with RESP3.
func (p *parser) score(value any) int64 {
	switch v := value.(type) {
	case float64:
		return int64(v)
	case string:
		number, err := strconv.ParseFloat(v, 64)
		if err != nil {
			p.fail("a score", v)
		}
		return int64(number)
	default:
		p.fail("a score", fmt.Sprint(value))
		return 0
	}
}
