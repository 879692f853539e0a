// Shocker-cg makes, limits and watches the cgroups of containers.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-cg/cg"
)

func main() { applet.Main(cg.Applet) }
