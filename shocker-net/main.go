// Command shocker-net connects containers to a network.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-net/net"
)

func main() { applet.Main(net.Applet) }
