// Copying and clearing memory in bulk, without SIMD.

.section .text.memory, "ax", %progbits

// extern "C" fn zero_page(page: *mut u8)
// Zeroes one 4 KiB page, 16-byte aligned. Plain stores, so it also works with
// the MMU off, where DC ZVA would fault.
.global zero_page
.type zero_page, %function
zero_page:
    mov     x1, #(4096 / 128)
1:  stp     xzr, xzr, [x0]
    stp     xzr, xzr, [x0, #16]
    stp     xzr, xzr, [x0, #32]
    stp     xzr, xzr, [x0, #48]
    stp     xzr, xzr, [x0, #64]
    stp     xzr, xzr, [x0, #80]
    stp     xzr, xzr, [x0, #96]
    stp     xzr, xzr, [x0, #112]
    add     x0, x0, #128
    subs    x1, x1, #1
    b.ne    1b
    ret
.size zero_page, . - zero_page

// extern "C" fn copy_blocks(to: *mut u8, from: *const u8, blocks: usize)
// Copies `blocks` > 0 times 128 bytes, both 16-byte aligned: images into guest
// memory, 18 instructions a block.
.global copy_blocks
.type copy_blocks, %function
copy_blocks:
1:  ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    ldp     x7, x8, [x1, #32]
    ldp     x9, x10, [x1, #48]
    stp     x3, x4, [x0]
    stp     x5, x6, [x0, #16]
    stp     x7, x8, [x0, #32]
    stp     x9, x10, [x0, #48]
    ldp     x3, x4, [x1, #64]
    ldp     x5, x6, [x1, #80]
    ldp     x7, x8, [x1, #96]
    ldp     x9, x10, [x1, #112]
    stp     x3, x4, [x0, #64]
    stp     x5, x6, [x0, #80]
    stp     x7, x8, [x0, #96]
    stp     x9, x10, [x0, #112]
    add     x0, x0, #128
    add     x1, x1, #128
    subs    x2, x2, #1
    b.ne    1b
    ret
.size copy_blocks, . - copy_blocks
