package rdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ErrLayout is the error of a store whose keys have another layout than this podlink's. Nothing was written to it.
var ErrLayout = errors.New("the store has another layout")

// Layout is the layout of the keys in a store: the key that names it, and the name. Without a key there is no check.
type Layout struct{ Key, Name string }

// verify returns a function that compares the layout that the store names with this one, and names it in a store that has
// none.
func (l Layout) verify(driver redis.UniversalClient) func(context.Context) error {
	return func(ctx context.Context) error {
		if l.Key == "" {
			return nil
		}
		name, err := driver.Get(ctx, l.Key).Result()
		if errors.Is(err, redis.Nil) {
			if err = driver.SetNX(ctx, l.Key, l.Name, 0).Err(); err == nil {
				name, err = driver.Get(ctx, l.Key).Result() // Maybe another podlink was faster.
			}
		}
		if redis.HasErrorPrefix(err, "WRONGTYPE") {
			name, err = "(not a text)", nil
		}
		if replied := replyError(err); replied != nil {
			err = replied
		}
		switch {
		case err != nil:
			return fmt.Errorf("the layout of the store can't be verified: %w", err)
		case name != l.Name:
			return fmt.Errorf("%w: its key %s says %q, and this podlink knows %q", ErrLayout, l.Key, name, l.Name)
		default:
			return nil
		}
	}
}
