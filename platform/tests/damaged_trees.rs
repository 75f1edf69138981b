//! Whatever is done to a device tree, reading it ends with a board or an error, never with a panic.

use platform::{board::Board, uart::early};
use proptest::prelude::*;

const TREES: [&[u8]; 2] =
    [include_bytes!("fixtures/qemu-virt-gic2.dtb"), include_bytes!("fixtures/qemu-virt-gic3.dtb")];

/// Reads everything that is ever read, and prints what is ever printed.
fn read(tree: &[u8]) {
    let mut bytes = vec![0; tree.len() + 8];
    let start = bytes.as_ptr().align_offset(8);
    let blob = &mut bytes[start..start + tree.len()];
    blob.copy_from_slice(tree);
    let _ = early::find(blob);
    match Board::from_dt(blob) {
        Ok(board) => {
            for problem in board.problems() {
                assert!(!problem.to_string().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overwritten_bytes_are_survived(
        tree in 0..TREES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
    ) {
        let mut blob = TREES[tree].to_vec();
        for (at, byte) in changes {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        read(&blob);
    }

    #[test]
    fn overwritten_words_are_survived(
        tree in 0..TREES.len(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0, 1, 2, 3, 4, 9, 0x7fff_ffff, u32::MAX])),
            1..8,
        ),
    ) {
        let mut blob = TREES[tree].to_vec();
        for (at, word) in changes {
            let at = at.index(blob.len() / 4) * 4;
            blob[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        read(&blob);
    }

    #[test]
    fn a_cut_off_tree_is_survived(tree in 0..TREES.len(), length in any::<prop::sample::Index>()) {
        let mut blob = TREES[tree].to_vec();
        blob.truncate(length.index(blob.len()));
        read(&blob);
    }

    #[test]
    fn a_removed_stretch_is_survived(
        tree in 0..TREES.len(),
        at in any::<prop::sample::Index>(),
        words in 1..64usize,
    ) {
        let mut blob = TREES[tree].to_vec();
        let start = at.index(blob.len() / 4) * 4;
        let end = (start + words * 4).min(blob.len());
        blob.drain(start..end);
        // Keep the header's total size true, so that the damage is met further in.
        let size = blob.len() as u32;
        if blob.len() >= 8 {
            blob[4..8].copy_from_slice(&size.to_be_bytes());
        }
        read(&blob);
    }
}
