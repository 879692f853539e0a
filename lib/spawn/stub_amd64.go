package spawn

// clone clones a child that runs steps, and returns its pid or -errno.
//
//go:noescape
func clone(args *cloneArgs, size uintptr, steps *step, head *header) (pid int)

const supported = true
