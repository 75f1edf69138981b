//! Who gets which physical memory.
//!
//! The buddy allocator deals in powers of two from 2 MiB up and finds a block
//! without search; giving one back searches a list, which is why 4 KiB frames
//! are not its business: they are cut from chunks and kept on a list of their
//! own, linked through the free frames themselves.
#![expect(unsafe_code, reason = "free memory holds the allocator's own links")]

use crate::arch;
use buddy_system_allocator::Heap;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use heapless::Vec;
use platform::board::Region;
use spin::Mutex;

/// Size and alignment of a chunk: one stage-2 block.
pub const CHUNK: u64 = 2 << 20;

/// Size of a frame.
pub const FRAME: u64 = 4096;

/// Pieces that one guest's memory may be in. Powers of two, so as many as the
/// size has bits above a chunk's.
pub const PIECES: usize = 24;

/// Physical memory of one guest, largest piece first.
pub type Pieces = Vec<Region, PIECES>;

static POOL: Mutex<Pool> =
    Mutex::new(Pool { chunks: Heap::new(), free_chunks: 0, first_frame: 0, frames: 0 });

struct Pool {
    /// Addresses are those of the linear map.
    chunks: Heap<48>,
    free_chunks: u64,
    /// Linear address of the first free frame, whose first word is that of the next; 0 at the end.
    first_frame: usize,
    frames: u64,
}

/// There is not enough memory for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub wanted: u64,
    /// Bytes free in 2 MiB chunks, perhaps in smaller pieces than needed.
    pub free: u64,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB wanted, {} MiB free", self.wanted.div_ceil(1 << 20), self.free >> 20)
    }
}

/// Adds free memory, aligned to chunks: RAM by the device tree that nobody
/// uses, and that was just put into the linear map.
pub fn add_mapped(region: Region) {
    let start = arch::linear(region.base);
    let mut pool = POOL.lock();
    pool.free_chunks += region.size / CHUNK;
    // SAFETY: only `boot::add_memory` calls this, with disjoint free regions.
    unsafe { pool.chunks.add_to_heap(start, start + region.size as usize) };
}

/// Bytes free in chunks.
pub fn free_bytes() -> u64 {
    POOL.lock().free_chunks * CHUNK
}

/// Memory for a guest: `size` bytes, a multiple of [`CHUNK`], in few pieces.
///
/// Pieces are powers of two and aligned to their size, so that stage 2 can map
/// them with the largest blocks there are.
pub fn allocate(size: u64) -> Result<Pieces, OutOfMemory> {
    let mut pool = POOL.lock();
    let error = OutOfMemory { wanted: size, free: pool.free_chunks * CHUNK };
    let mut pieces = Pieces::new();
    let mut left = size;
    let mut try_next = size;
    while left > 0 {
        let piece = 1 << (63 - left.min(try_next).leading_zeros());
        match pool.take(piece) {
            Some(base) if pieces.push(Region { base, size: piece }).is_ok() => left -= piece,
            // No block as large as that: look for two of half the size.
            None if piece > CHUNK => try_next = piece / 2,
            taken => {
                if let Some(base) = taken {
                    pool.give_back(Region { base, size: piece });
                }
                pieces.iter().for_each(|&piece| pool.give_back(piece));
                return Err(error);
            }
        }
    }
    Ok(pieces)
}

/// Returns a guest's memory.
///
/// # Safety
///
/// The pieces came from [`allocate`], nothing maps them any more, and every
/// TLB has forgotten them.
pub unsafe fn free(pieces: &[Region]) {
    let mut pool = POOL.lock();
    pieces.iter().for_each(|&piece| pool.give_back(piece));
}

/// One zeroed 4 KiB frame; its physical address.
pub fn allocate_frame() -> Option<u64> {
    let mut pool = POOL.lock();
    if pool.first_frame == 0 {
        pool.refill()?;
    }
    let frame = pool.first_frame;
    // SAFETY: a free frame is ours and its first word is a link.
    pool.first_frame = unsafe { (frame as *const usize).read() };
    pool.frames += 1;
    drop(pool);
    // SAFETY: the frame left the list; it is 4 KiB of mapped memory.
    unsafe { arch::clear(frame as *mut u8, FRAME as usize) };
    Some(physical(frame))
}

/// `count` adjacent zeroed frames, a power of two of at most a chunk's,
/// aligned to their total size. They cost a chunk; its rest becomes frames.
pub fn allocate_adjacent_frames(count: usize) -> Option<u64> {
    let mut pool = POOL.lock();
    let chunk = arch::linear(pool.take(CHUNK)?);
    let taken = count * FRAME as usize;
    pool.cut(chunk + taken, chunk + CHUNK as usize);
    pool.frames += count as u64;
    drop(pool);
    // SAFETY: the start of the chunk is on no list; it is mapped memory.
    unsafe { arch::clear(chunk as *mut u8, taken) };
    Some(physical(chunk))
}

/// Returns a frame.
///
/// # Safety
///
/// The frame came from [`allocate_frame`] and nothing refers to it any more.
pub unsafe fn free_frame(address: u64) {
    let mut pool = POOL.lock();
    pool.frames -= 1;
    pool.push_frame(arch::linear(address));
}

impl Pool {
    fn take(&mut self, size: u64) -> Option<u64> {
        let layout = Layout::from_size_align(size as usize, size as usize).ok()?;
        let block = self.chunks.alloc(layout).ok()?;
        self.free_chunks -= size / CHUNK;
        Some(physical(block.addr().get()))
    }

    fn give_back(&mut self, piece: Region) {
        let size = piece.size as usize;
        let (Ok(layout), Some(block)) =
            (Layout::from_size_align(size, size), NonNull::new(arch::linear(piece.base) as *mut u8))
        else {
            return;
        };
        // SAFETY: `take` gave out this block with this layout.
        unsafe { self.chunks.dealloc(block, layout) };
        self.free_chunks += piece.size / CHUNK;
    }

    /// Cuts one chunk into frames.
    fn refill(&mut self) -> Option<()> {
        let chunk = arch::linear(self.take(CHUNK)?);
        self.cut(chunk, chunk + CHUNK as usize);
        Some(())
    }

    /// Puts the frames of a range on the list, downwards, so that they are
    /// handed out in ascending order.
    fn cut(&mut self, from: usize, to: usize) {
        for frame in (from..to).step_by(FRAME as usize).rev() {
            self.push_frame(frame);
        }
    }

    fn push_frame(&mut self, frame: usize) {
        // SAFETY: the frame is free and mapped; its first word is ours now.
        unsafe { (frame as *mut usize).write(self.first_frame) };
        self.first_frame = frame;
    }
}

/// Physical address of an address in the linear map.
fn physical(linear: usize) -> u64 {
    (linear - arch::linear(0)) as u64
}
