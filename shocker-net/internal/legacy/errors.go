package legacy

import "errors"

var (
	// ErrNoProgram is a host that has lost the program that filled its chains.
	ErrNoProgram = errors.New("there is no program iptables-legacy: install it, accept the bridge in that chain yourself, or use --network none or host")
	// ErrName is a name that iptables takes for the beginning of many.
	ErrName = errors.New("iptables takes a + at its end for all names that begin so: set SHOCKER_BRIDGE to another name")
	// ErrVanished is a rule that is not there though the program succeeded.
	ErrVanished = errors.New("somebody has taken the rules away at once")
	// ErrTable is a table of another form than the kernel's headers tell.
	ErrTable = errors.New("cannot be read")
)
