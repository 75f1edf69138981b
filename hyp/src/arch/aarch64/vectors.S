// EL2's exception vectors and the world switch between EL2 and a vCPU.
//
// Sixteen slots, sixteen decisions (DDI 0487, "Exception vectors"): four are
// live, the lower-EL AArch64 ones; in each of the twelve others EL2 itself has
// failed, so the slot's number goes into a crash record.
//
// While a guest runs, SP_EL2 points at a *fast frame* that `guest_enter`
// leaves on the CPU's stack: room for the registers that a Rust function may
// clobber, then where the full set belongs, then the vCPU. A common exit saves
// just those, calls Rust, loads them back and returns: the guest's x19-x29 and
// all of its EL1 and SIMD state stay in hardware. If the instruction names one
// of x19-x29, Rust says so (w0 = MORE), they join the frame, and a second
// function gets it. Only when one of them asks for it (any other w0 but zero)
// is everything saved and `guest_enter` returns.

.equ FRAME_LR,    144               // x18, x30
.equ FRAME_KEPT,  160               // x19 to x29
.equ FRAME_REGS,  248               // *GuestRegs, *Vcpu
.equ FRAME_SIZE,  272

.macro save_clobbered
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x30, [sp, #FRAME_LR]
.endm

.macro load_clobbered
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x30, [sp, #FRAME_LR]
    ldp     x0, x1, [sp, #0]
.endm

// A slot where EL2 itself failed. The stack pointer may be what failed, so
// take the emergency stack first; TPIDR_EL1 is the one scratch register here
// (a guest's, and it has run for the last time).
.macro failed_slot number
    .org    vectors + \number * 0x80
    msr     tpidr_el1, x0
    mov     x0, #\number
    b       el2_failed
.endm

// A slot that a guest reaches. (`.org` refuses to go back: a slot that outgrows
// its 32 instructions does not assemble.)
.macro guest_slot number, handler
    .org    vectors + \number * 0x80
    save_clobbered
    ldr     x1, [sp, #(FRAME_REGS + 8)]
    mov     x0, sp
    bl      \handler
    cbnz    w0, guest_leave
    load_clobbered
    eret
    // Nothing may be fetched past an eret (straight-line speculation).
    dsb     nsh
    isb
.endm

.section .text.vectors, "ax", %progbits
.balign 0x800
.global vectors
.type vectors, %function
vectors:
    failed_slot 0                   // current EL, SP_EL0: we never run on SP_EL0
    failed_slot 1
    failed_slot 2
    failed_slot 3
    failed_slot 4                   // current EL, SP_ELx: a fault in EL2
    failed_slot 5                   // IRQ: masked at EL2
    failed_slot 6                   // FIQ: masked at EL2
    failed_slot 7                   // SError
    guest_slot 8, {on_sync}            // lower EL, AArch64
    guest_slot 9, {on_irq}
    guest_slot 10, {on_irq}             // FIQ: group 0 does not reach us; look anyway
    guest_slot 11, {on_serror}
    failed_slot 12                  // lower EL, AArch32: only if EL1 were AArch32, and
    failed_slot 13                  // HCR_EL2.RW says that it is not (AArch32 at EL0
    failed_slot 14                  // below an AArch64 EL1 arrives in slots 8..11)
    failed_slot 15
    .org    vectors + 0x800
.size vectors, . - vectors

.section .text.switch, "ax", %progbits

// extern "C" fn guest_enter(regs: *mut GuestRegs, vcpu: *const Vcpu) -> u32
// In:  x0 = the vCPU's registers, x1 = passed on to the handlers.
// Out: w0 = what the handler returned; all guest registers in `regs`.
.global guest_enter
.type guest_enter, %function
guest_enter:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    sub     sp, sp, #FRAME_SIZE
    stp     x0, x1, [sp, #FRAME_REGS]
    ldp     x2, x3, [x0, #{regs_pc}]    // pc, pstate
    msr     elr_el2, x2
    msr     spsr_el2, x3
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret
    dsb     nsh
    isb
.size guest_enter, . - guest_enter

// From a guest slot: w0 = why, sp = frame, guest's x19-x29 still live.
// Asks the second function if that is all it takes; else completes the register
// set and returns from `guest_enter`.
guest_leave:
    cmp     w0, #{more}
    b.ne    guest_leave_for_good
    stp     x19, x20, [sp, #FRAME_KEPT]
    stp     x21, x22, [sp, #(FRAME_KEPT + 16)]
    stp     x23, x24, [sp, #(FRAME_KEPT + 32)]
    stp     x25, x26, [sp, #(FRAME_KEPT + 48)]
    stp     x27, x28, [sp, #(FRAME_KEPT + 64)]
    str     x29, [sp, #(FRAME_KEPT + 80)]
    ldr     x1, [sp, #(FRAME_REGS + 8)]
    mov     x0, sp
    bl      {on_sync_whole}
    ldp     x19, x20, [sp, #FRAME_KEPT]
    ldp     x21, x22, [sp, #(FRAME_KEPT + 16)]
    ldp     x23, x24, [sp, #(FRAME_KEPT + 32)]
    ldp     x25, x26, [sp, #(FRAME_KEPT + 48)]
    ldp     x27, x28, [sp, #(FRAME_KEPT + 64)]
    ldr     x29, [sp, #(FRAME_KEPT + 80)]
    cbnz    w0, guest_leave_for_good
    load_clobbered
    eret
    dsb     nsh
    isb
guest_leave_for_good:
    ldr     x1, [sp, #FRAME_REGS]
    stp     x19, x20, [x1, #152]
    stp     x21, x22, [x1, #168]
    stp     x23, x24, [x1, #184]
    stp     x25, x26, [x1, #200]
    stp     x27, x28, [x1, #216]
    ldp     x2, x3, [sp, #FRAME_LR]      // x18, x30
    str     x2, [x1, #144]
    stp     x29, x3, [x1, #232]
    ldp     x2, x3, [sp, #0]
    stp     x2, x3, [x1, #0]
    ldp     x2, x3, [sp, #16]
    stp     x2, x3, [x1, #16]
    ldp     x2, x3, [sp, #32]
    stp     x2, x3, [x1, #32]
    ldp     x2, x3, [sp, #48]
    stp     x2, x3, [x1, #48]
    ldp     x2, x3, [sp, #64]
    stp     x2, x3, [x1, #64]
    ldp     x2, x3, [sp, #80]
    stp     x2, x3, [x1, #80]
    ldp     x2, x3, [sp, #96]
    stp     x2, x3, [x1, #96]
    ldp     x2, x3, [sp, #112]
    stp     x2, x3, [x1, #112]
    ldp     x2, x3, [sp, #128]
    stp     x2, x3, [x1, #128]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x1, #{regs_pc}]
    add     sp, sp, #FRAME_SIZE
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret

// An exception from EL2 itself. x0 = slot, TPIDR_EL1 = x0 as it was.
// Moves to this CPU's emergency stack (the stack may be the culprit), lays out
// a `FailedFrame` and calls Rust, which does not return.
.type el2_failed, %function
el2_failed:
    msr     sp_el0, x1                  // a second scratch, as lost as the first
    mrs     x1, tpidr_el2
    cbz     x1, 8f                      // so early that there is no per-CPU block
    ldr     x1, [x1, #{percpu_emergency}]
    sub     x1, x1, #{failed_size}
    stp     x2, x3, [x1, #16]
    mov     x2, sp
    mov     sp, x1
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    stp     x30, x2, [sp, #240]
    mrs     x3, tpidr_el1
    mrs     x4, sp_el0
    stp     x3, x4, [sp, #0]
    mov     x1, sp
    bl      {failed}
8:  wfi
    b       8b
.size el2_failed, . - el2_failed

// extern "C" fn simd_save(to: *mut Simd); extern "C" fn simd_load(from: *const Simd)
// q0-q31, FPSR, FPCR: the guest's, moved only when another vCPU needs the
// registers. EL2 itself is built without SIMD.
.arch_extension fp
.arch_extension simd
.macro simd_pairs op
    \op    q0, q1, [x0, #0]
    \op    q2, q3, [x0, #32]
    \op    q4, q5, [x0, #64]
    \op    q6, q7, [x0, #96]
    \op    q8, q9, [x0, #128]
    \op    q10, q11, [x0, #160]
    \op    q12, q13, [x0, #192]
    \op    q14, q15, [x0, #224]
    \op    q16, q17, [x0, #256]
    \op    q18, q19, [x0, #288]
    \op    q20, q21, [x0, #320]
    \op    q22, q23, [x0, #352]
    \op    q24, q25, [x0, #384]
    \op    q26, q27, [x0, #416]
    \op    q28, q29, [x0, #448]
    \op    q30, q31, [x0, #480]
.endm
.global simd_save, simd_load
.type simd_save, %function
simd_save:
    simd_pairs stp
    mrs     x1, fpsr
    mrs     x2, fpcr
    add     x0, x0, #512
    stp     x1, x2, [x0]
    ret
.size simd_save, . - simd_save
.type simd_load, %function
simd_load:
    simd_pairs ldp
    add     x0, x0, #512
    ldp     x1, x2, [x0]
    msr     fpsr, x1
    msr     fpcr, x2
    ret
.size simd_load, . - simd_load
