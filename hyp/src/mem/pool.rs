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

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

struct Pool {
    /// Addresses are those of the linear map.
    chunks: Heap<48>,
    free_chunks: u64,
    /// Linear address of the first free frame, whose first word is that of the next; 0 at the end.
    first_frame: usize,
    /// Frames in use.
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
    // SAFETY: only `boot::add_memory` calls this, with disjoint free regions.
    unsafe { POOL.lock().add(region) }
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
    POOL.lock().allocate(size)
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
    let frame = POOL.lock().take_frame()?;
    // SAFETY: the frame left the list; it is 4 KiB of mapped memory.
    unsafe { arch::clear(frame as *mut u8, FRAME as usize) };
    Some(physical(frame))
}

/// `count` adjacent zeroed frames, a power of two of at most a chunk's,
/// aligned to their total size. They cost a chunk; its rest becomes frames.
pub fn allocate_adjacent_frames(count: usize) -> Option<u64> {
    let first = POOL.lock().take_adjacent_frames(count)?;
    // SAFETY: these frames are on no list; they are mapped memory.
    unsafe { arch::clear(first as *mut u8, count * FRAME as usize) };
    Some(physical(first))
}

/// Returns a frame.
///
/// # Safety
///
/// The frame came from [`allocate_frame`] or [`allocate_adjacent_frames`] and
/// nothing refers to it any more.
pub unsafe fn free_frame(address: u64) {
    let mut pool = POOL.lock();
    pool.frames -= 1;
    pool.push_frame(arch::linear(address));
}

impl Pool {
    const fn new() -> Self {
        Self { chunks: Heap::new(), free_chunks: 0, first_frame: 0, frames: 0 }
    }

    /// Adds memory.
    ///
    /// # Safety
    ///
    /// It is in the linear map, aligned to chunks, and nobody else's from now on.
    unsafe fn add(&mut self, region: Region) {
        let start = arch::linear(region.base);
        self.free_chunks += region.size / CHUNK;
        // SAFETY: the caller's contract.
        unsafe { self.chunks.add_to_heap(start, start + region.size as usize) };
    }

    fn allocate(&mut self, size: u64) -> Result<Pieces, OutOfMemory> {
        let error = OutOfMemory { wanted: size, free: self.free_chunks * CHUNK };
        let mut pieces = Pieces::new();
        let mut left = size;
        let mut try_next = size;
        while left > 0 {
            let piece = 1 << (63 - left.min(try_next).leading_zeros());
            match self.take(piece) {
                Some(base) if pieces.push(Region { base, size: piece }).is_ok() => left -= piece,
                // No block as large as that: look for two of half the size.
                None if piece > CHUNK => try_next = piece / 2,
                taken => {
                    if let Some(base) = taken {
                        self.give_back(Region { base, size: piece });
                    }
                    pieces.iter().for_each(|&piece| self.give_back(piece));
                    return Err(error);
                }
            }
        }
        for piece in &pieces {
            // The allocator's link was there. Left in a cache, it could be
            // written back over what a guest stores with its own caches off.
            arch::clean_invalidate_to_coherency(arch::linear(piece.base), size_of::<usize>());
        }
        Ok(pieces)
    }

    /// Linear address of a frame that is no longer free.
    fn take_frame(&mut self) -> Option<usize> {
        if self.first_frame == 0 {
            self.refill()?;
        }
        let frame = self.first_frame;
        // SAFETY: a free frame is ours and its first word is a link.
        self.first_frame = unsafe { (frame as *const usize).read() };
        self.frames += 1;
        Some(frame)
    }

    /// Linear address of the first of `count` frames that are no longer free.
    fn take_adjacent_frames(&mut self, count: usize) -> Option<usize> {
        let taken = count.checked_mul(FRAME as usize).filter(|&taken| taken <= CHUNK as usize)?;
        let chunk = arch::linear(self.take(CHUNK)?);
        self.cut(chunk + taken, chunk + CHUNK as usize);
        self.frames += count as u64;
        Some(chunk)
    }

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

#[cfg(test)]
mod tests {
    use super::{CHUNK, FRAME, OutOfMemory, Pool};
    use crate::vm::testing::memory;
    use platform::board::Region;

    /// A pool with one region per size, in chunks.
    #[expect(unsafe_code, reason = "host memory that nobody else has")]
    fn pool(chunks: &[u64]) -> Pool {
        let mut pool = Pool::new();
        for &chunks in chunks {
            // SAFETY: nobody else knows of this memory.
            unsafe { pool.add(memory(chunks * CHUNK)) };
        }
        pool
    }

    fn sizes(pieces: &[Region]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.size / CHUNK).collect()
    }

    #[test]
    fn memory_comes_in_few_aligned_pieces_the_largest_first() {
        let pieces = pool(&[16]).allocate(13 * CHUNK).expect("16 chunks are free");
        assert_eq!(sizes(&pieces), [8, 4, 1]);
        assert!(pieces.iter().all(|piece| piece.base % piece.size == 0));
    }

    #[test]
    fn pieces_do_not_overlap() {
        let mut pieces = pool(&[8, 8]).allocate(15 * CHUNK).expect("16 chunks are free");
        pieces.sort_unstable_by_key(|piece| piece.base);
        assert!(pieces.windows(2).all(|two| two[0].base + two[0].size <= two[1].base));
    }

    #[test]
    fn where_no_block_is_large_enough_smaller_ones_are_taken() {
        let pieces = pool(&[4, 2, 2]).allocate(8 * CHUNK).expect("8 chunks are free");
        assert_eq!(sizes(&pieces), [4, 2, 2]);
    }

    #[test]
    fn too_much_is_refused_and_nothing_is_lost() {
        let mut pool = pool(&[4]);
        let refused = pool.allocate(5 * CHUNK);
        assert_eq!(refused, Err(OutOfMemory { wanted: 5 * CHUNK, free: 4 * CHUNK }));
        assert_eq!((pool.free_chunks, pool.allocate(4 * CHUNK).is_ok()), (4, true));
    }

    #[test]
    fn what_was_given_back_grows_together_again() {
        let mut pool = pool(&[4]);
        let pieces = pool.allocate(3 * CHUNK).expect("4 chunks are free");
        pieces.iter().for_each(|&piece| pool.give_back(piece));
        assert_eq!(pool.allocate(4 * CHUNK).map(|pieces| sizes(&pieces)), Ok(vec![4]));
    }

    #[test]
    fn nothing_is_asked_for_and_nothing_is_given() {
        assert_eq!(pool(&[1]).allocate(0).map(|pieces| pieces.len()), Ok(0));
    }

    #[test]
    fn a_chunk_is_as_many_frames_as_fit() {
        let mut pool = pool(&[1]);
        let mut frames: Vec<usize> = core::iter::from_fn(|| pool.take_frame()).collect();
        frames.dedup();
        assert_eq!((frames.len() as u64, pool.frames), (CHUNK / FRAME, CHUNK / FRAME));
    }

    #[test]
    fn frames_ascend() {
        let mut pool = pool(&[1]);
        let first = pool.take_frame().expect("a chunk is free");
        assert_eq!(pool.take_frame(), Some(first + FRAME as usize));
    }

    #[test]
    fn adjacent_frames_are_aligned_to_their_total_size() {
        let mut pool = pool(&[2]);
        let _ = pool.take_frame();
        let first = pool.take_adjacent_frames(16).expect("a chunk is free");
        assert_eq!(first % (16 * FRAME as usize), 0);
    }

    #[test]
    fn no_frame_is_adjacent_frames_and_single_frame_at_once() {
        let mut pool = pool(&[1]);
        let first = pool.take_adjacent_frames(2).expect("a chunk is free");
        let singles: Vec<usize> = core::iter::from_fn(|| pool.take_frame()).collect();
        assert_eq!(singles.len() as u64, CHUNK / FRAME - 2);
        assert!(singles.iter().all(|frame| !(first..first + 2 * FRAME as usize).contains(frame)));
    }

    #[test]
    fn more_adjacent_frames_than_a_chunk_has_are_refused() {
        assert_eq!(pool(&[4]).take_adjacent_frames(513), None);
    }
}
