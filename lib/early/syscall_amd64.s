#include "textflag.h"

// func syscall4(nr, a, b, c, d uintptr) int64
TEXT ·syscall4(SB), NOSPLIT, $0-48
	MOVQ nr+0(FP), AX
	MOVQ a+8(FP), DI
	MOVQ b+16(FP), SI
	MOVQ c+24(FP), DX
	MOVQ d+32(FP), R10
	SYSCALL
	MOVQ AX, ret+40(FP)
	RET

// func program() (begin, end uintptr)
TEXT ·program(SB), NOSPLIT, $0-16
	LEAQ runtime·text(SB), AX
	MOVQ AX, begin+0(FP)
	LEAQ runtime·epclntab(SB), AX
	MOVQ AX, end+8(FP)
	RET
