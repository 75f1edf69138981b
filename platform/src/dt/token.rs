//! The structure block as tokens: a cursor that never leaves the block.
//!
//! Boot spends most of its device-tree time here, so the block is read in words, names are measured four bytes at
//! a time, and [`Tokens::skip_node`] looks at nothing it does not need.

use super::{DtError, Tree};

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Words of a property before its value: token, length, name.
const PROPERTY_HEAD: usize = 3;

/// One token (Devicetree Specification, "Lexical structure").
#[derive(Clone, Copy)]
pub(super) enum Token<'dt> {
    /// A node begins; its full name with unit address, empty for the root.
    Begin(&'dt [u8]),
    /// A property of the node begun last; [`Tokens::next_property`] reads it.
    Property,
    /// The node begun last and not yet ended ends.
    End,
    /// The tree ends.
    Finish,
}

/// A position in the structure block.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'dt> {
    /// Big-endian, as in memory.
    words: &'dt [u32],
    /// The same block.
    bytes: &'dt [u8],
    /// Index of the next token's word; may be past the end.
    at: usize,
}

impl<'dt> Tokens<'dt> {
    /// From the first token of `tree`.
    pub(super) fn new(tree: &Tree<'dt>) -> Self {
        Self::at(tree, 0)
    }

    /// From the token at `offset`, which came from [`Tokens::offset`].
    pub(super) fn at(tree: &Tree<'dt>, offset: u32) -> Self {
        Self { words: tree.structure_words, bytes: tree.structure, at: offset as usize / 4 }
    }

    /// The byte offset of the next token.
    pub(super) fn offset(&self) -> u32 {
        (self.at * 4) as u32
    }

    /// Takes the next token, passing over NOPs.
    pub(super) fn next(&mut self) -> Result<Token<'dt>, DtError> {
        loop {
            let start = self.at;
            match self.word(start)? {
                PROPERTY => {
                    let length = self.word(start + 1)? as usize;
                    self.bytes(start + PROPERTY_HEAD, length)?;
                    self.at = start + PROPERTY_HEAD + length.div_ceil(4);
                    return Ok(Token::Property);
                }
                BEGIN_NODE => {
                    let length = self.name_length(start + 1)?;
                    self.at = start + 1 + length / 4 + 1;
                    return Ok(Token::Begin(self.bytes(start + 1, length)?));
                }
                token => {
                    self.at = start + 1;
                    match token {
                        END_NODE => return Ok(Token::End),
                        NOP => {}
                        END => return Ok(Token::Finish),
                        _ => return Err(DtError::BadToken((start * 4) as u32)),
                    }
                }
            }
        }
    }

    /// Takes the next token if it is a property: its name's offset and its value. A damaged property is left for
    /// [`Tokens::next`] to complain about.
    #[inline(always)]
    pub(super) fn next_property(&mut self) -> Option<(u32, &'dt [u8])> {
        loop {
            let [token, length, name, ..] = *self.words.get(self.at..)? else { return None };
            match u32::from_be(token) {
                PROPERTY => {
                    let length = u32::from_be(length) as usize;
                    let value = self.bytes(self.at + PROPERTY_HEAD, length).ok()?;
                    self.at += PROPERTY_HEAD + length.div_ceil(4);
                    return Some((u32::from_be(name), value));
                }
                NOP => self.at += 1,
                _ => return None,
            }
        }
    }

    /// Passes over the rest of the node that was begun last, children included.
    pub(super) fn skip_node(&mut self) -> Result<(), DtError> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.word(self.at)? {
                PROPERTY => {
                    let length = self.word(self.at + 1)? as usize;
                    self.at += PROPERTY_HEAD + length.div_ceil(4);
                }
                // Cannot overflow: every level takes at least eight bytes of the block.
                BEGIN_NODE => {
                    depth += 1;
                    self.at += 1 + self.name_length(self.at + 1)? / 4 + 1;
                }
                END_NODE => {
                    depth -= 1;
                    self.at += 1;
                }
                NOP => self.at += 1,
                END => return Err(DtError::EndsEarly(self.offset())),
                _ => return Err(DtError::BadToken(self.offset())),
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn word(&self, index: usize) -> Result<u32, DtError> {
        match self.words.get(index) {
            Some(&word) => Ok(u32::from_be(word)),
            None => Err(DtError::EndsEarly(self.offset())),
        }
    }

    /// `length` bytes from word `index` on.
    fn bytes(&self, index: usize, length: usize) -> Result<&'dt [u8], DtError> {
        let rest = self.bytes.get(index * 4..).unwrap_or(&[]);
        rest.get(..length).ok_or(DtError::EndsEarly(self.offset()))
    }

    /// Bytes before the first NUL from word `index` on.
    #[inline]
    fn name_length(&self, index: usize) -> Result<usize, DtError> {
        let mut at = index;
        loop {
            let Some(&word) = self.words.get(at) else { return Err(DtError::EndsEarly(self.offset())) };
            // Bytes in memory order from the least significant one. Subtracting one borrows out of a zero byte
            // into its top bit; the lowest bit set marks the first zero (higher marks may be false).
            let word = word.to_le();
            let zeros = word.wrapping_sub(0x0101_0101) & !word & 0x8080_8080;
            if zeros != 0 {
                return Ok((at - index) * 4 + zeros.trailing_zeros() as usize / 8);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::TreeBuilder, *};

    #[test]
    fn names_of_every_length_are_measured() {
        for length in 0..12 {
            let name = &"abcdefghijkl"[..length];
            let blob = TreeBuilder::new().begin(name).text("x", "y").build();
            let tree = Tree::new(&blob).expect("valid header");
            let mut tokens = Tokens::new(&tree);
            assert!(matches!(tokens.next(), Ok(Token::Begin(b""))));
            while tokens.next_property().is_some() {}
            assert!(matches!(tokens.next(), Ok(Token::Begin(found)) if found == name.as_bytes()), "{name}");
            assert!(matches!(tokens.next_property(), Some((_, b"y\0"))), "{name}");
        }
    }

    #[test]
    fn skipping_a_node_ends_after_its_end() {
        let blob =
            TreeBuilder::new().begin("a").begin("b").text("x", "y").nop().end().end().begin("c").build();
        let tree = Tree::new(&blob).expect("valid header");
        let mut tokens = Tokens::new(&tree);
        while !matches!(tokens.next(), Ok(Token::Begin(b"a"))) {}
        tokens.skip_node().expect("valid tree");
        assert!(matches!(tokens.next(), Ok(Token::Begin(b"c"))));
    }
}
