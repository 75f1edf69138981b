//! Property values: big-endian 32-bit cells, strings, lists of strings.
//!
//! All reads are bounds-checked and may be unaligned; `None` means "not there".

/// The 32-bit cell number `index` of `value`.
pub fn word(value: &[u8], index: usize) -> Option<u32> {
    let start = index.checked_mul(4)?;
    let bytes = value.get(start..start.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The number made of `count` cells from cell `index` on, most significant first.
///
/// Zero cells are the number 0. More than two cells are not a number: such addresses (PCI) carry flags.
pub fn cells(value: &[u8], index: usize, count: usize) -> Option<u64> {
    match count {
        0 => Some(0),
        1 => Some(word(value, index)?.into()),
        2 => Some(u64::from(word(value, index)?) << 32 | u64::from(word(value, index.checked_add(1)?)?)),
        _ => None,
    }
}

/// A string value without its NUL and whatever follows it.
pub fn text(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    value.get(..end).unwrap_or(value)
}

/// The strings of a NUL-separated list, such as `compatible`.
#[derive(Clone)]
pub struct Strings<'dt>(&'dt [u8]);

impl<'dt> Strings<'dt> {
    /// Over the strings of `value`.
    pub fn new(value: &'dt [u8]) -> Self {
        Self(value)
    }
}

impl<'dt> Iterator for Strings<'dt> {
    type Item = &'dt [u8];

    fn next(&mut self) -> Option<&'dt [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let string = text(self.0);
        self.0 = self.0.get(string.len() + 1..).unwrap_or(&[]);
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_big_endian_and_most_significant_first() {
        let value = [0, 0, 0, 1, 0x80, 0, 0, 2];
        assert_eq!(word(&value, 1), Some(0x8000_0002));
        assert_eq!(cells(&value, 0, 2), Some(0x1_8000_0002));
    }

    #[test]
    fn a_cell_past_the_end_is_none() {
        assert_eq!(word(&[0, 0, 0, 1, 0, 0, 0], 1), None);
        assert_eq!(word(&[0; 4], usize::MAX), None);
        assert_eq!(cells(&[0; 4], usize::MAX, 2), None);
    }

    #[test]
    fn three_cells_are_not_a_number() {
        assert_eq!(cells(&[0; 12], 0, 3), None);
    }

    #[test]
    fn a_list_is_split_at_its_nuls() {
        assert!(Strings::new(b"arm,pl011\0arm,primecell\0").eq([b"arm,pl011".as_slice(), b"arm,primecell"]));
    }

    #[test]
    fn an_unterminated_string_ends_with_its_value() {
        assert_eq!(text(b"okay"), b"okay");
        assert!(Strings::new(b"a\0b").eq([b"a".as_slice(), b"b"]));
    }
}
