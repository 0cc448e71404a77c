package data

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"podlink/internal/biz"
)

// passed returns the function Pass of a store for the conformance suite: all times that the store has for the service become
// earlier, as if its clock were set forward.
func passed(store *testStore) func(ctx context.Context, key biz.ServiceKey, d time.Duration) error {
	return func(ctx context.Context, key biz.ServiceKey, d time.Duration) error {
		name, ms := store.keys.service(key), d.Milliseconds()
		members, err := store.client.ZRangeWithScores(ctx, name, 0, -1).Result()
		if err != nil || len(members) == 0 {
			return err
		}
		for i := range members {
			members[i] = earlier(members[i], ms)
		}
		_, err = store.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Del(ctx, name)
			pipe.ZAdd(ctx, name, members...)
			return nil
		})
		return err
	}
}

// earlier returns a member with times that are earlier.
func earlier(z redis.Z, ms int64) redis.Z {
	member, _ := z.Member.(string)
	const deadAge, timer, fence, sets, storeScore = 1 << 51, 1 << 52, -1 << 34, -1 << 35, -1 << 36
	score := int64(z.Score)
	switch {
	case score == storeScore:
		return redis.Z{Score: z.Score, Member: changed(member, ms, 1)}
	case score < fence:
		return z
	case score < metaScore:
		return redis.Z{Score: z.Score, Member: changed(member, ms, 4, 7)}
	case score == metaScore:
		return redis.Z{Score: z.Score, Member: changed(member, ms, 2, 5)}
	case score < 67*scoreRange:
		return redis.Z{Score: z.Score, Member: changed(member, ms, 4)}
	case score >= deadAge:
		return redis.Z{Score: z.Score - float64(ms), Member: member}
	default:
		return z
	}
}

// changed subtracts from the fields of the member that are not 0.
func changed(member string, ms int64, fields ...int) string {
	parts := strings.Split(member, " ")
	for _, field := range fields {
		if number, err := strconv.ParseInt(parts[field], 10, 64); err == nil && number != 0 {
			parts[field] = fmt.Sprint(number - ms)
		}
	}
	return strings.Join(parts, " ")
}
