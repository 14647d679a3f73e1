package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/headgate/headgate/exec/pyenv"
)

// environment measures what a function pays for an environment that was resolved
// and made before: to read the lock and to find the directory.
func (b *bench) environment(ctx context.Context) error {
	uv := pyenv.FindUV(b.interpreter.Path)
	if uv == "" {
		return errors.New("there is no uv to resolve packages with")
	}
	store, err := pyenv.OpenStore(filepath.Join(b.cache, "python"), &pyenv.UV{Path: uv})
	if err != nil {
		return err
	}
	spec := pyenv.NewSpec(b.interpreter.Version, map[string]string{"pandas": "==2.2.2"})
	env, err := store.Resolve(ctx, spec)
	if err != nil {
		return err
	}
	if _, err := store.Make(ctx, env, nil); err != nil {
		return err
	}
	lock := &pyenv.Lock{}
	lock.Put(env)
	text := lock.Encode()
	var times []time.Duration
	for range 20 * b.rounds {
		begin := time.Now()
		read, err := pyenv.ParseLock(text)
		if err != nil {
			return err
		}
		found := read.Find(spec)
		if found == nil {
			return errors.New("the lock does not have what it was made of")
		}
		made, err := store.Make(ctx, found, nil)
		if err != nil {
			return err
		}
		if made.Wheels > 0 {
			return errors.New("the environment was made again")
		}
		times = append(times, time.Since(begin))
	}
	b.add(figure{
		Name: "environment already resolved, per function", Inside: ms(median(times)), Unit: "ms",
		Value: ms(median(times)), Of: "value", Target: 5, Detail: env.Summary(),
	})
	return nil
}
