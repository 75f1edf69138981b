//! Which physical memory is free: arithmetic on address ranges, done once at boot.

use heapless::Vec;
use platform::board::Region;

/// Pieces that free memory may be in; a board with more loses the smallest.
const PIECES: usize = 64;

/// Free memory as disjoint ranges.
#[derive(Debug, Default)]
pub struct FreeMemory {
    pieces: Vec<Region, PIECES>,
}

impl FreeMemory {
    /// All of `memory`, nothing taken out yet.
    pub fn of(memory: &[Region]) -> Self {
        let mut free = Self::default();
        for &region in memory {
            // Firmware may list a range twice: count it once.
            free.remove(region);
            free.add(region);
        }
        free
    }

    /// Takes `region` out, whole or in part.
    pub fn remove(&mut self, region: Region) {
        let taken = region.base..region.base.saturating_add(region.size);
        let pieces = core::mem::take(&mut self.pieces);
        for piece in pieces {
            let (start, end) = (piece.base, piece.base.saturating_add(piece.size));
            let below = start..end.min(taken.start);
            let above = start.max(taken.end)..end;
            if below.start >= below.end && above.start >= above.end {
                continue;
            }
            for kept in [below, above] {
                if kept.start < kept.end {
                    self.add(Region { base: kept.start, size: kept.end - kept.start });
                }
            }
        }
    }

    /// The free ranges, each rounded inwards to multiples of `unit` bytes.
    pub fn aligned(&self, unit: u64) -> impl Iterator<Item = Region> {
        self.pieces.iter().filter_map(move |piece| {
            let start = piece.base.checked_next_multiple_of(unit)?;
            let end = piece.base.saturating_add(piece.size) / unit * unit;
            (start < end).then(|| Region { base: start, size: end - start })
        })
    }

    fn add(&mut self, region: Region) {
        if region.size == 0 || self.pieces.push(region).is_ok() {
            return;
        }
        // Full: keep the larger ones.
        if let Some(smallest) = self.pieces.iter_mut().min_by_key(|piece| piece.size)
            && smallest.size < region.size
        {
            *smallest = region;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FreeMemory;
    use platform::board::Region;

    fn region(base: u64, size: u64) -> Region {
        Region { base, size }
    }

    fn after(memory: &[Region], taken: &[Region], unit: u64) -> Vec<(u64, u64)> {
        let mut free = FreeMemory::of(memory);
        taken.iter().for_each(|&region| free.remove(region));
        let mut pieces: Vec<_> = free.aligned(unit).map(|piece| (piece.base, piece.size)).collect();
        pieces.sort_unstable();
        pieces
    }

    #[test]
    fn a_hole_in_the_middle_leaves_both_ends() {
        assert_eq!(after(&[region(0, 100)], &[region(40, 20)], 1), [(0, 40), (60, 40)]);
    }

    #[test]
    fn a_hole_outside_leaves_everything() {
        assert_eq!(after(&[region(100, 100)], &[region(0, 50), region(300, 9)], 1), [(100, 100)]);
    }

    #[test]
    fn a_hole_over_everything_leaves_nothing() {
        assert_eq!(after(&[region(100, 100)], &[region(0, u64::MAX)], 1), []);
    }

    #[test]
    fn memory_listed_twice_counts_once() {
        assert_eq!(after(&[region(0, 100), region(50, 100)], &[], 1), [(0, 50), (50, 100)]);
    }

    #[test]
    fn pieces_are_rounded_inwards() {
        assert_eq!(after(&[region(5, 30)], &[], 10), [(10, 20)]);
        assert_eq!(after(&[region(5, 9)], &[], 10), []);
    }
}
