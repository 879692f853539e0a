// Shocker-run runs the programs of records in containers.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-run/run"
)

func main() { applet.Main(run.Applet) }
