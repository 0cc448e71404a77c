package data

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// uncertainPrefix is before the uid in the field of an uncertain entry. No uid has a control character.
const uncertainPrefix = "\x1f"

// The updates of statefulUpdateIndex.
const (
	opAdd    = "+"
	opRemove = "-"
	opSet    = "="
	opDelete = "!"
)

// updateStep returns the step that updates the index of the pod.
func (f *Fleet) updateStep(key biz.ServiceKey, pod biz.PodID, updates []biz.IndexUpdate) rdb.Step {
	const words = 3 // of an update
	args := make([]any, 0, words*len(updates))
	for _, update := range updates {
		entry := update.Entry
		switch update.Op {
		case biz.AddEntry:
			args = append(args, opAdd, entry.UID, encodeEntry(entry))
		case biz.RemoveEntry:
			args = append(args, opRemove, entry.UID, int64(entry.Epoch))
		case biz.AddUncertain:
			args = append(args, opSet, uncertainPrefix+entry.UID, time.Now().UnixMilli())
		case biz.DropUncertain:
			args = append(args, opDelete, uncertainPrefix+entry.UID, 0)
		}
	}
	return rdb.Step{Script: scriptUpdateIndex, Key: f.keys.index(key, pod), Args: args}
}

// encodeEntry returns the value of an entry that is not uncertain. Its expiry is rounded up, so that it is never early.
func encodeEntry(entry biz.IndexEntry) string {
	value := strconv.FormatInt(int64(entry.Epoch), 10)
	if !entry.Expires.IsZero() {
		value += " " + strconv.FormatInt(entry.Expires.Add(time.Second-1).Unix(), 10)
	}
	return value
}

// indexEntry parses a field of an index and its value.
func (p *parser) indexEntry(field, value string) biz.IndexEntry {
	if uid, ok := strings.CutPrefix(field, uncertainPrefix); ok {
		return biz.IndexEntry{UID: p.text(uid), Uncertain: true, Noted: time.UnixMilli(p.number(value, 1, math.MaxInt64))}
	}
	epoch, expiry, expires := strings.Cut(value, " ")
	entry := biz.IndexEntry{UID: p.text(field), Epoch: biz.Epoch(p.number(epoch, 1, maxEpoch))}
	if expires {
		entry.Expires = time.Unix(p.number(expiry, 1, maxCount), 0)
	}
	return entry
}

// members returns the members of a set.
func (f *Fleet) members(ctx context.Context, kind, key string, decode func(p *parser, member string)) error {
	value, call, err := f.runner.Read(ctx, kind, "smembers", key)
	if err != nil {
		return domainError(err)
	}
	members, ok := value.([]any)
	if !ok && value != nil {
		err = fmt.Errorf("SMEMBERS answered %T", value)
	}
	var p parser
	for _, member := range members {
		text, _ := member.(string)
		decode(&p, text)
	}
	if err == nil {
		err = p.err
	}
	call.Decoded(err)
	return err
}

// Services implements biz.IndexRepo.
func (f *Fleet) Services(ctx context.Context, namespace string) ([]biz.ServiceKey, error) {
	var services []biz.ServiceKey
	err := f.members(ctx, keyServices, f.keys.services(), func(p *parser, member string) {
		itsNamespace, service, _ := strings.Cut(member, ":")
		key := biz.ServiceKey{Namespace: p.text(itsNamespace), Service: p.text(service)}
		if namespace == "" || namespace == key.Namespace {
			services = append(services, key)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(services, func(a, b biz.ServiceKey) int {
		if a.Namespace != b.Namespace {
			return strings.Compare(a.Namespace, b.Namespace)
		}
		return strings.Compare(a.Service, b.Service)
	})
	return services, nil
}

// IndexedPods implements biz.IndexRepo. It reads the sizes of all indexes in one pipeline.
func (f *Fleet) IndexedPods(ctx context.Context, key biz.ServiceKey) ([]biz.IndexedPod, error) {
	var pods []biz.IndexedPod
	err := f.members(ctx, keyIndexed, f.keys.indexed(key), func(p *parser, member string) {
		pods = append(pods, biz.IndexedPod{Pod: biz.PodID(p.number(member, 0, math.MaxInt32))})
	})
	if err != nil || len(pods) == 0 {
		return nil, err
	}
	slices.SortFunc(pods, func(a, b biz.IndexedPod) int { return int(a.Pod) - int(b.Pod) })
	reads := make([][]any, len(pods))
	for i, pod := range pods {
		reads[i] = []any{"hlen", f.keys.index(key, pod.Pod)}
	}
	results, err := f.runner.ReadAll(ctx, keyIndex, reads)
	if err != nil {
		return nil, domainError(err)
	}
	for i, result := range results {
		if result.Err != nil {
			return nil, domainError(result.Err)
		}
		entries, ok := result.Value.(int64)
		if !ok {
			return nil, fmt.Errorf("HLEN answered %T", result.Value)
		}
		pods[i].Entries = entries
	}
	return pods, nil
}
