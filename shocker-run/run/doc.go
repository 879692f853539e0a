// Package run is shocker-run, the last stage of a run: it takes records and
// runs their programs in containers, connects them with the caller and the
// log, and keeps what became of them.
//
// What a container's life leaves in the run dir and in the store:
//
//	RUN/ID/supervisor             locked while somebody waits for the program
//	RUN/ID/state.json             OCI state, and the identity of the process
//	STORE/containers/ID/config.json  the record as it was run
//	STORE/containers/ID/log          output, in the CRI log format
//	STORE/containers/ID/state.json   times and exit status
//
// Whether the program runs is asked of the kernel, by that identity.
package run

// Name of the stage.
const Name = "shocker-run"
