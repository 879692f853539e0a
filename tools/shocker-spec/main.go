// Command shocker-spec makes the record of a container.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/tools/shocker-spec/spec"
)

func main() { applet.Main(spec.Applet) }
