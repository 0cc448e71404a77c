package biz

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSharedPodIsConvertedOnce(t *testing.T) {
	shared := &SharedPod{Pod: Pod{Report: Report{Pod: 7}}}
	convert := func(p *Pod) any { return new(p.Pod) }
	var all sync.Map
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { all.Store(shared.Converted(convert), true) })
	}
	callers.Wait()
	different := 0
	all.Range(func(converted, _ any) bool {
		require.Equal(t, PodID(7), *converted.(*PodID))
		different++
		return true
	})
	require.Equal(t, 1, different, "all callers get the same")
}
