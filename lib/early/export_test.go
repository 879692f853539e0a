package early

import "unsafe"

// First is the address of the object behind which the heap was populated.
func First() uintptr { return uintptr(unsafe.Pointer(first)) }

func Program() (begin, end uintptr) { return program() }

func MapProgram() bool { return mapProgram() }
