package biz

import "context"

type actorKey struct{}

// WithActor returns a context whose mutations are the actor's: a job that podlink carries out, not a caller.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf returns the actor of WithActor; "": none.
func ActorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}
