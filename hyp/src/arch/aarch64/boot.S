// Entry of the image: from the boot loader to Rust at the link address.
//
// In:  the arm64 Linux boot protocol (Documentation/arch/arm64/booting.rst):
//      x0 = physical address of the device tree, MMU off, EL2 (or EL3 where
//      there is no firmware, or EL1 by mistake). Load address: any 4 KiB
//      boundary.
// Out: `primary(dtb)` or `secondary(index)` in Rust, at the link address, with
//      MMU and caches on, on that CPU's own stack.
//
// Everything in this page is position independent until the jump through
// `=label`, the only absolute addresses here. All of it must fit one page:
// that page is what stays mapped while translation is switched on.
//
// Translation goes on in two steps so that no load address can collide with
// the link address: `boot_l0_identity` maps this page where it is and in slot
// 511 (the "trampoline"); we jump to the trampoline; `boot_l0`, which also has
// it, then replaces the first root; then we jump to the link address.

.equ TRAMPOLINE,   511 << 39
.equ EL2_SCTLR_OFF, 0x30c50830      // RES1 bits only: MMU and caches off, little endian

.section .head.text, "ax", %progbits
.global _start
_start:
    .long   0xea00000e              // code0: `ands x14, x0, x0`; in 32-bit mode a branch to aarch32_entry
    b       primary_entry           // code1
    .quad   0                       // text_offset: any 2 MiB-aligned base will do
    .quad   __image_size
    .quad   0xa                     // little endian, 4 KiB pages, anywhere in RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// A boot loader that took us for a 32-bit kernel ends here, 64 bytes from the start. There is no way from here to 64 bits,
// so all that is left is to say so, on the UARTs of the machines where this is a known mistake. A32 code, which this
// assembler doesn't know: beside each word stands what it means. Position independent; no stack.
aarch32_entry:
    .long   0xe28f4044              //         adr   r4, virt
    .long   0xe5945000              //         ldr   r5, [r4]
    .long   0xe5956fe0              //         ldr   r6, [r5, #0xfe0]   a PL011's identification,
    .long   0xe20660ff              //         and   r6, r6, #0xff      or whatever is in memory there
    .long   0xe3560011              //         cmp   r6, #0x11
    .long   0x12844010              //         addne r4, r4, #(raspberry - virt)
    .long   0xe8b400e0              // uart:   ldm   r4!, {{r5, r6, r7}}
    .long   0xe3550000              //         cmp   r5, #0
    .long   0x0afffffe              // hang:   beq   hang
    .long   0xe28f804c              //         adr   r8, text
    .long   0xe4d89001              // put:    ldrb  r9, [r8], #1
    .long   0xe3590000              //         cmp   r9, #0
    .long   0x0afffff8              //         beq   uart
    .long   0xe596a000              // full:   ldr   r10, [r6]
    .long   0xe02aa007              //         eor   r10, r10, r7
    .long   0xe31a0020              //         tst   r10, #0x20
    .long   0x1afffffb              //         bne   full
    .long   0xe5859000              //         str   r9, [r5]
    .long   0xeafffff6              //         b     put
    // Data register, status register, the status bit 5 that means `has room`.
    .long   0x09000000, 0x09000018, 0       // virt: QEMU's, a PL011
    .long   0
    .long   0xfe201000, 0xfe201018, 0       // raspberry: the Raspberry Pi 4's PL011
    .long   0xfe215040, 0xfe215054, 0x20    // and its mini-UART
    .long   0
    .asciz  "\r\nentresol: started in 32-bit mode, but the image is 64-bit code. On a Raspberry Pi set arm_64bit=1 in config.txt; on QEMU use qemu-system-aarch64 with a 64-bit -cpu.\r\n"
    .balign 4

// x0 = device tree. Clobbers everything.
primary_entry:
    mov     x20, x0
    mov     x21, #0                 // 0 = the first CPU
    b       choose_level

// PSCI CPU_ON and the spin table both enter here, MMU off, at EL2 or EL3.
.global secondary_entry
secondary_entry:
    mov     x21, #1
    // fall through

// x20, x21 live. x23 is set. Leaves through `at_el2`, or `early_refuse` when at EL1.
choose_level:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    lsr     x23, x1, #2             // the level we were entered at, for early_main
    cmp     x1, #(3 << 2)
    b.eq    drop_from_el3
    cmp     x1, #(2 << 2)
    b.eq    at_el2
    // EL1: there is nothing to virtualise with. Say so if a console is known.
    adrp    x1, early_vectors
    add     x1, x1, :lo12:early_vectors
    msr     vbar_el1, x1
    msr     spsel, #1
    isb
    adrp    x1, boot_stack_end
    add     x1, x1, :lo12:boot_stack_end
    mov     sp, x1
    mov     x0, x20
    bl      {early_refuse_el1}
0:  wfi
    b       0b

// No EL3 firmware: set what it would have set and go down one level.
// Only registers that every v8.0 core has; Rust hands the GIC over.
drop_from_el3:
    mov     x1, #0x5b1              // RW, HCE, SMD off; RES1 5:4; NS
    // bit 8 HCE, bit 10 RW, bits 5:4 RES1, bit 0 NS
    mrs     x2, id_aa64isar1_el1
    ubfx    x3, x2, #4, #8          // APA, API: pointer authentication
    ubfx    x4, x2, #24, #8         // GPA, GPI
    orr     x3, x3, x4
    cbz     x3, 1f
    orr     x1, x1, #(3 << 16)      // APK, API: no trap to an empty EL3
1:  mrs     x2, id_aa64mmfr0_el1
    ubfx    x3, x2, #56, #4         // fine-grained traps: EL2 writes their registers
    cbz     x3, 8f
    orr     x1, x1, #(1 << 27)      // FGTEn
8:  mrs     x2, id_aa64mmfr1_el1
    ubfx    x3, x2, #40, #4         // HCRX_EL2
    cbz     x3, 9f
    orr     x1, x1, #(1 << 38)      // HXEn
9:  msr     scr_el3, x1
    msr     cptr_el3, xzr
    msr     mdcr_el3, xzr
    mrs     x2, id_aa64pfr0_el1
    ubfx    x2, x2, #24, #4         // GIC system registers
    cbz     x2, 2f
    mov     x2, #0xf                // SRE, DFB, DIB, Enable
    msr     S3_6_C12_C12_5, x2      // ICC_SRE_EL3
    isb
2:  cbnz    x21, 3f                 // the GIC is handed over once, by the first CPU
    adrp    x1, boot_stack_end
    add     x1, x1, :lo12:boot_stack_end
    mov     sp, x1
    mov     x0, x20
    bl      {early_el3}
3:  ldr     x2, =EL2_SCTLR_OFF
    msr     sctlr_el2, x2
    adr     x2, at_el2
    msr     elr_el3, x2
    mov     x2, #0x3c9              // EL2h, DAIF masked
    msr     spsr_el3, x2
    eret

// At EL2 in an unknown state: firmware and U-Boot leave different things.
at_el2:
    ldr     x1, =EL2_SCTLR_OFF
    msr     sctlr_el2, x1
    mov     x1, #(1 << 31)          // HCR_EL2.RW, nothing else: E2H off
    msr     hcr_el2, x1
    mov     x1, #0x32ff             // CPTR_EL2 RES1 with TFP clear
    msr     cptr_el2, x1
    msr     spsel, #1
    isb
    cbnz    x21, enable_mmu

    adrp    x1, early_vectors
    add     x1, x1, :lo12:early_vectors
    msr     vbar_el2, x1
    isb
    adrp    x1, boot_stack_end
    add     x1, x1, :lo12:boot_stack_end
    mov     sp, x1
    mov     x0, x20
    mov     x1, x23
    bl      {early_main}            // finds a console, fills the page tables

    // What was just written with caches off must not be shadowed by stale
    // lines once they are on: invalidate the whole boot area.
    adrp    x0, __file_end
    adrp    x1, boot_pool_used
    add     x1, x1, :lo12:boot_pool_used
    ldr     x1, [x1]
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4         // DminLine, log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
    dmb     sy
6:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    6b
    dsb     sy

// x20, x21 live; x22 = physical address of the image from here on.
enable_mmu:
    adrp    x22, __image_start
    ldr     x1, =0x04ff             // MAIR: 0 = Normal write-back, 1 = Device-nGnRE
    msr     mair_el2, x1
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf            // PARange; 52 bits needs LPA2, so 48 at most
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    ldr     x2, =0x80803510         // RES1 31,23; TG0 4K; SH0 inner; WB, WB; T0SZ 16
    orr     x1, x2, x1, lsl #16     // PS
    msr     tcr_el2, x1
    adrp    x1, boot_l0_identity
    adrp    x2, boot_l0
    msr     ttbr0_el2, x1
    tlbi    alle2
    dsb     nsh
    isb
    ldr     x3, =0x30cd183d         // RES1 | M, C, SA0.., I, WXN, EOS, EIS
    msr     sctlr_el2, x3
    isb
    adr     x3, 4f
    movz    x4, #0xff80, lsl #32    // TRAMPOLINE: slot 511
    orr     x3, x3, x4
    br      x3
4:  msr     ttbr0_el2, x2
    isb
    tlbi    alle2
    dsb     nsh
    isb
    ldr     x3, =at_link_address
    br      x3

.section .text.boot, "ax", %progbits
// At the link address, MMU on. x20 = device tree, x21 = 0 if first,
// x22 = physical address of the image.
at_link_address:
    cbnz    x21, secondary_at_link_address

    // Zero .bss by cache line blocks; DCZID_EL0.BS is log2 of words.
    adrp    x0, __boot_end
    adrp    x1, __bss_end
    mrs     x2, dczid_el0
    and     x2, x2, #0xf
    mov     x3, #4
    lsl     x2, x3, x2
5:  dc      zva, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    5b

    mov     x0, #0
    bl      cpu_stack
    mov     x0, x20
    mov     x1, x22
    bl      {primary}
    brk     #1

// Which CPU are we? The first CPU listed everybody's MPIDR.
secondary_at_link_address:
    mrs     x1, mpidr_el1
    ldr     x2, =0xff00ffffff
    and     x1, x1, x2
    adrp    x2, {mpidrs}
    add     x2, x2, :lo12:{mpidrs}
    mov     x0, #0
6:  ldr     x3, [x2, x0, lsl #3]
    cmp     x3, x1
    b.eq    7f
    add     x0, x0, #1
    cmp     x0, #{max_cpus}
    b.lo    6b
0:  wfe                             // not on the list: stay out of the way
    b       0b
7:  mov     x20, x0
    bl      cpu_stack
    mov     x0, x20
    bl      {secondary}
    brk     #1

// In: x0 = CPU index. Out: sp, TPIDR_EL2 (per-CPU block), VBAR_EL2 set.
// Clobbers x1, x2.
cpu_stack:
    adrp    x1, {stacks}
    add     x1, x1, :lo12:{stacks}
    ldr     x2, ={stack_stride}
    madd    x1, x2, x0, x1
    ldr     x2, ={stack_stride}
    add     x1, x1, x2              // a stack ends where its slot ends
    mov     sp, x1
    adrp    x1, {percpu}
    add     x1, x1, :lo12:{percpu}
    mov     x2, #{percpu_stride}
    madd    x1, x2, x0, x1
    msr     tpidr_el2, x1
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el2, x1
    isb
    ret

// Exceptions before the MMU is on. A load or store that nobody answered is
// passed over: x0 may point anywhere, and without a device tree we look for a
// UART where there may be none. Anything else stops here.
.section .text.vectors.early, "ax", %progbits
.balign 2048
early_vectors:
.rept 4                             // current level, SP_EL0
    b       .
    .balign 128
.endr
    stp     x0, x1, [sp, #-16]!     // current level, own stack: synchronous
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    1f
    mrs     x1, esr_el2
    mrs     x0, elr_el2
    add     x0, x0, #4
    msr     elr_el2, x0
    b       2f
1:  mrs     x1, esr_el1
    mrs     x0, elr_el1
    add     x0, x0, #4
    msr     elr_el1, x0
2:  lsr     x1, x1, #26             // exception class
    cmp     x1, #0x25               // data abort, same level
    b.ne    .
    ldp     x0, x1, [sp], #16
    eret
    .balign 128
.rept 11
    b       .
    .balign 128
.endr

// Written before .bss is zeroed and before caches are on. The pool comes last:
// only what is used of it needs cache maintenance.
.section .boot, "aw", %nobits
.balign 4096
boot_stack:
    .skip   8192
boot_stack_end:
.global boot_pool_used
boot_pool_used:
    .skip   8

.section .boot.pool, "aw", %nobits
.balign 4096
.global boot_l0, boot_l0_identity, boot_pool, boot_pool_end
boot_l0_identity:
    .skip   4096
boot_l0:
    .skip   4096
boot_pool:
    .skip   4096 * {boot_tables}
boot_pool_end:
