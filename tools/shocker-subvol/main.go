// Command shocker-subvol gives containers their root as btrfs snapshots.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/tools/shocker-subvol/subvol"
)

func main() { applet.Main(subvol.Stage.Applet()) }
