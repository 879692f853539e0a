// Command shocker is the dispatcher: it holds the stations of a container's
// life and picks one by the name it is called by. What needs TLS and
// decompression, the image side, is an executable of its own beside it.
package main

import (
	"shocker.sh/lib/applet"
	"shocker.sh/shocker-cg/cg"
	"shocker.sh/shocker-net/net"
	"shocker.sh/shocker-run/oci"
	"shocker.sh/shocker-run/run"
	"shocker.sh/tools/container"
	"shocker.sh/tools/image"
	"shocker.sh/tools/shocker-spec/spec"
	"shocker.sh/tools/shocker-subvol/subvol"
	"shocker.sh/tools/system"
)

// pipeline is the one list of stages of a run.
var pipeline = container.Pipeline{
	Stages: []applet.Stage{subvol.Stage, net.Stage, cg.Stage},
	Last: container.Last{
		Name:    run.Name,
		Flags:   run.Flags,
		Command: run.Applet,
		Run:     run.Last,
		Start:   start,
	},
}

// stations are the programs that others may take the place of.
var stations = []string{
	"shocker-pull", "shocker-unpack", spec.Name, subvol.Name, net.Name, cg.Stage.Name, run.Name,
}

func main() {
	box := applet.Box{
		Name:     "shocker",
		Synopsis: "containers out of small programs",
		Verbs: []applet.Applet{
			imageSide("pull", "fetch an image from a registry"),
			applet.Command(image.Images),
			applet.Command(image.Init),
			called("run", pipeline.Applet()),
			applet.Command(container.Ps),
			applet.Command(runtime.LogsCommand()),
			applet.Command(runtime.ExecCommand()),
			applet.Command(pipeline.Start()),
			applet.Command(runtime.StopCommand()),
			applet.Command(runtime.KillCommand()),
			applet.Command(runtime.WaitCommand()),
			applet.Command(image.Commit(freeze)),
			applet.Command(container.Rm(kill, net.Teardown)),
			applet.Command(image.Rmi),
			applet.Command(container.Inspect),
			applet.Command(system.Gc(net.Teardown)),
			applet.Command(system.Parts(stations)),
			imageSide("unpack", "make an image of blobs"),
		},
		Parts: []applet.Applet{spec.Applet, subvol.Stage.Applet(), net.Applet, cg.Applet, pipeline.Applet(), oci.Applet},
	}
	applet.Main(box.Applet())
}

// called is an applet under another name.
func called(name string, a applet.Applet) applet.Applet {
	a.Name = name
	return a
}
