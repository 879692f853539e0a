// Command shocker-unpack makes images of blobs.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-pull/unpack"
)

func main() { applet.Main(unpack.Applet) }
