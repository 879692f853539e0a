#include "textflag.h"

// Offsets in type header and type step, which table.go checks.
#define CURRENT 0
#define ERRNO   8
#define ALLSIGS 16
#define OLDSIGS 24

#define NR       0
#define ARGS     8
#define INDIRECT 56
#define RESULT   64
#define IGNORE   72
#define FLAGS    80
#define STEPSIZE 96

#define SYS_rt_sigprocmask 14
#define SYS_exit_group     231
#define SYS_clone3         435

// ARG loads an argument: the value, or what is at that address if its bit in
// INDIRECT is set.
#define ARG(n, reg) \
	MOVQ (ARGS+8*n)(R12), reg; \
	BTQ  $n, BX; \
	JCC  2(PC); \
	MOVQ (reg), reg

// func clone(args *cloneArgs, size uintptr, steps *step, head *header) (pid int)
//
// The child never returns and touches no stack: all it needs is in registers
// and in the table. Signals are blocked around it, as it has no handlers.
TEXT ·clone(SB), NOSPLIT|NOFRAME, $0-40
	MOVQ steps+16(FP), R12
	MOVQ head+24(FP), R13

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $2, DI                      // SIG_SETMASK
	LEAQ ALLSIGS(R13), SI
	LEAQ OLDSIGS(R13), DX
	MOVQ $8, R10
	SYSCALL

	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JNZ  parent
	JMP  ·interpret(SB)

parent:
	MOVQ AX, pid+32(FP)
	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $2, DI
	LEAQ OLDSIGS(R13), SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL
	RET

// interpret runs the steps from R12 on; R13 is the header. It is copied to
// another address (shed.go), so it may refer to nothing outside of itself.
TEXT ·interpret(SB), NOSPLIT|NOFRAME, $0-0
step:
	MOVQ R12, CURRENT(R13)
	MOVQ INDIRECT(R12), BX
	ARG(0, DI)
	ARG(1, SI)
	ARG(2, DX)
	ARG(3, R10)
	ARG(4, R8)
	ARG(5, R9)
	MOVQ NR(R12), AX
	SYSCALL
	MOVQ AX, RESULT(R12)
	MOVQ FLAGS(R12), BX
	CMPQ AX, $-4095
	JCC  failed                      // unsigned: -4095 to -1
	BTQ  $0, BX                      // stepClone
	JCC  notclone
	TESTQ AX, AX
	JZ   next                        // the new child goes on
	MOVQ $0, DI
	JMP  exit
notclone:
	BTQ  $1, BX                      // stepData
	JCC  next
	TESTQ AX, AX
	JNZ  next
	MOVQ $-32, AX                    // end of file: EPIPE
	JMP  report
failed:
	BTQ  $2, BX                      // stepMayFail
	JCS  next
	CMPQ AX, IGNORE(R12)
	JEQ  next
report:
	MOVQ AX, ERRNO(R13)
	MOVQ $1, DI
exit:
	MOVQ $SYS_exit_group, AX
	SYSCALL
	UNDEF                            // a seccomp filter forbids it: die by SIGILL
next:
	ADDQ $STEPSIZE, R12
	JMP  step

// signaled is the handler of signals that end the child: DI is the number.
TEXT ·signaled(SB), NOSPLIT|NOFRAME, $0-0
	ADDQ $128, DI
	MOVQ $SYS_exit_group, AX
	SYSCALL
	UNDEF

// What stands behind it in this file is behind it in memory.
TEXT ·behind(SB), NOSPLIT|NOFRAME, $0-0
	RET

// func code() (begin *byte, size, handler uintptr)
TEXT ·code(SB), NOSPLIT, $0-24
	LEAQ ·interpret(SB), AX
	MOVQ AX, begin+0(FP)
	LEAQ ·behind(SB), CX
	SUBQ AX, CX
	MOVQ CX, size+8(FP)
	LEAQ ·signaled(SB), CX
	SUBQ AX, CX
	MOVQ CX, handler+16(FP)
	RET
