// Command shocker-image is the image side in one executable: what needs TLS
// and decompression, and would make every start of a container slower.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-pull/pull"
	"shocker.sh/shocker-pull/unpack"
)

func main() {
	box := applet.Box{
		Name:     "shocker-image",
		Synopsis: "the image side of shocker",
		Parts:    []applet.Applet{pull.Applet, unpack.Applet},
	}
	applet.Main(box.Applet())
}
