// Command shocker-oci is an OCI runtime.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-run/oci"
)

func main() { applet.Main(oci.Applet) }
