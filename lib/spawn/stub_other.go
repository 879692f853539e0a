//go:build !amd64

package spawn

func clone(*cloneArgs, uintptr, *step, *header) int { panic(unreached) }

func stub() ([]byte, uintptr) { panic(unreached) }

func prologue(uint64, int, int, *step, *header) []byte { panic(unreached) }

const (
	supported = false
	machine   = 0
	unreached = "not reached: NewTable fails"
)
