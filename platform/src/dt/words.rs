//! Bytes seen as words.
#![expect(unsafe_code, reason = "the one cast that lets tokens be loaded whole with strict alignment")]

/// `bytes` as words in memory order; trailing bytes are left out. `None` if they do not begin at a word.
pub(super) fn words(bytes: &[u8]) -> Option<&[u32]> {
    // SAFETY: every bit pattern is a `u32`.
    let (before, words, _) = unsafe { bytes.align_to::<u32>() };
    before.is_empty().then_some(words)
}
