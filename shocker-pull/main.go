// Command shocker-pull fetches images from registries.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-pull/pull"
)

func main() { applet.Main(pull.Applet) }
