//! The first store to memory that nobody has used: what demand paging costs.
#![expect(unsafe_code, reason = "measured code is assembly")]

use crate::cost::{self, count};

/// Memory above this program that neither it nor a loader uses: with 128 MiB,
/// loaders put their data into the upper half.
const UNUSED: usize = 0x4200_0000;

const PAGE: usize = 0x1000;
const BLOCK: usize = 0x20_0000;

/// Prints both. Every store has a page to itself; the first few pages warm the
/// path. The blocks come after, on a warm path, so few of them are enough.
pub(crate) fn measure() {
    let mut pages = (UNUSED..UNUSED + BLOCK).step_by(PAGE);
    cost::measure("first_touch_4k", || pages.next().map_or(u64::MAX, store));
    let blocks = (UNUSED + BLOCK..).step_by(BLOCK).take(8);
    cost::report(
        "first_touch_2m",
        blocks.map(store).min().unwrap_or(u64::MAX).saturating_sub(cost::overhead()),
    );
}

fn store(address: usize) -> u64 {
    count!(["str xzr, [{address}]"], address = in(reg) address)
}
