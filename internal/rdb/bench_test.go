package rdb

import (
	"testing"

	redistest "podlink/test/kit/redis"
)

// BenchmarkRunner measures a read and a mutation through the engine, of one caller and of many, who share round trips.
func BenchmarkRunner(b *testing.B) {
	server := redistest.Start(b)
	db := Open(testOptions(server.Addr()), counterTest)
	b.Cleanup(db.Close)
	if err := db.Health.Check(b.Context()); err != nil {
		b.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"HGet": func() error {
			_, _, call, err := db.Runner.HGet(b.Context(), "counter", "hash", "field")
			if err == nil {
				call.Decoded(nil)
			}
			return err
		},
		"Run": func() error {
			_, err := db.Runner.Run(b.Context(), increment, "counter")
			return err
		},
	} {
		b.Run(name+"/alone", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/128 callers", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := call(); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
