package group

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/undo"
)

// Kill kills every process in the group and below it, and returns when none is
// left. A group that is not there is empty.
func (g *Group) Kill(ctx context.Context) error { return undo.KillCgroup(ctx, g.Dirs()) }

// Signal sends a signal to every process in the group and below it, once. The
// group is frozen meanwhile, so that none escapes by forking; one that is frozen
// stays so.
func (g *Group) Signal(ctx context.Context, sig unix.Signal) (retErr error) {
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	if !frozen {
		err := g.Freeze(ctx)
		switch {
		case err == nil:
			defer func() { retErr = errors.Join(retErr, g.Thaw()) }()
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrGone), errors.Is(err, ErrNoController):
		default:
			return err
		}
	}
	return undo.SignalCgroup(g.Dirs(), sig)
}
