package group

import (
	"context"

	"shocker.sh/lib/undo"
)

// Kill kills every process in the group and below it, and returns when none is
// left. A group that is not there is empty.
func (g *Group) Kill(ctx context.Context) error { return undo.KillCgroup(ctx, g.Dirs()) }
