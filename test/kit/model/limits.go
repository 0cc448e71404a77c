package model

import (
	"crypto/rand"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"podlink/internal/biz"
)

// limit returns an error if the report would exceed a limit.
func (r podRepo) limit(s *Store, v *service, before *pod, fenced bool, report biz.Report, now int64) error {
	limit := &biz.LimitError{Limit: "limits.max_pods"}
	if before == nil || before.buried || s.liveness(v, before.Pod, now) == biz.Dead {
		alive := 0
		for _, p := range v.pods {
			if s.liveness(v, p.Pod, now) != biz.Dead {
				alive++
			}
		}
		if alive >= r.MaxPods {
			return limit
		}
	}
	if before == nil && !fenced && len(v.pods)+len(v.fences) >= 16*r.MaxPods {
		oldest := v.oldest(math.MaxInt64, func(p *pod) bool { return p.buried }, 1)
		if len(oldest) == 0 {
			return limit
		}
		v.forget(oldest[0])
	}
	sets := make(map[string]bool)
	for id, p := range v.pods {
		if id != report.Pod && !p.buried && len(p.Labels) > 0 {
			sets[textOf(p.Labels)] = true
		}
	}
	if text := textOf(report.Labels); text != "" && !sets[text] && len(sets) >= 64 {
		return &biz.LimitError{Limit: "label_sets"}
	}
	return nil
}

func textOf(labels map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		text.WriteString(strconv.Quote(name) + "=" + strconv.Quote(labels[name]) + ",")
	}
	return text.String()
}

// oldest returns up to most pods and fences that are older than a time, the oldest first. Cordoned pods are never among them.
func (v *service) oldest(beforeMs int64, which func(p *pod) bool, most int) []biz.PodID {
	ages := make(map[biz.PodID]int64)
	for id, p := range v.pods {
		if which(p) && p.Cordon == biz.Ready && p.HeartbeatMs < beforeMs {
			ages[id] = p.HeartbeatMs
		}
	}
	for id, f := range v.fences {
		if f.at < beforeMs {
			ages[id] = f.at
		}
	}
	ids := slices.SortedFunc(maps.Keys(ages), func(a, b biz.PodID) int {
		if ages[a] != ages[b] {
			return int(ages[a] - ages[b])
		}
		return strings.Compare(strconv.Itoa(int(a)), strconv.Itoa(int(b)))
	})
	return ids[:min(most, len(ids))]
}

func (v *service) forget(id biz.PodID) {
	delete(v.pods, id)
	delete(v.fences, id)
}

// age buries the pods that are dead for certain, and forgets the dead ones whose report is older than a time.
func (v *service) age(except biz.PodID, forgetMs int64) {
	for id, p := range v.pods {
		if id != except && p.TTL != biz.Forever && v.hearing.Heard > p.HeardMs+3000*int64(p.TTL) {
			p.buried, p.Given = true, 0
		}
	}
	for _, id := range v.oldest(forgetMs, func(p *pod) bool { return p.buried }, 10) {
		if id != except {
			v.forget(id)
		}
	}
}

// see takes in the primaries that a podlink sees. With a new one the store gets another id.
func (v *service) see(primaries string, now int64) {
	current := []string{}
	changed := v.storeID == ""
	for name := range strings.SplitSeq(primaries, ",") {
		if name != "" {
			current = append(current, name)
			changed = changed || !slices.Contains(v.primaries, name)
		}
	}
	if !changed {
		return
	}
	before := slices.DeleteFunc(slices.Clone(v.primaries), func(name string) bool { return slices.Contains(current, name) })
	all := slices.Concat(before, current)
	v.primaries = all[max(0, min(len(all)-64, len(all)-len(current))):]
	v.storeID, v.storeAt = rand.Text(), now
}
