//! The structure block as tokens: a cursor that never leaves the block.

use super::{DtError, Tree, value::word};

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// One token (Devicetree Specification, "Lexical structure").
#[derive(Clone, Copy)]
pub(super) enum Token<'dt> {
    /// A node begins; its full name with unit address, empty for the root.
    Begin(&'dt [u8]),
    /// A property of the node begun last; its name is an offset into the strings block.
    Property {
        /// For [`Tree::string`].
        name: u32,
        /// The raw value.
        value: &'dt [u8],
    },
    /// The node begun last and not yet ended ends.
    End,
    /// The tree ends.
    Finish,
}

/// A position in the structure block.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'dt> {
    structure: &'dt [u8],
    at: usize,
}

impl<'dt> Tokens<'dt> {
    /// From the first token of `tree`.
    pub(super) fn new(tree: &Tree<'dt>) -> Self {
        Self::at(tree, 0)
    }

    /// From the token at `offset`, which came from [`Tokens::offset`].
    pub(super) fn at(tree: &Tree<'dt>, offset: u32) -> Self {
        Self { structure: tree.structure, at: offset as usize }
    }

    /// Where the next token is.
    pub(super) fn offset(&self) -> u32 {
        self.at as u32
    }

    /// Takes the next token, passing over NOPs.
    pub(super) fn next(&mut self) -> Result<Token<'dt>, DtError> {
        loop {
            let start = self.offset();
            match self.word()? {
                PROPERTY => {
                    let length = self.word()? as usize;
                    let name = self.word()?;
                    return Ok(Token::Property { name, value: self.bytes(length)? });
                }
                BEGIN_NODE => return Ok(Token::Begin(self.name()?)),
                END_NODE => return Ok(Token::End),
                NOP => {}
                END => return Ok(Token::Finish),
                _ => return Err(DtError::BadToken(start)),
            }
        }
    }

    /// Passes over the rest of the node that was begun last, children included.
    pub(super) fn skip_node(&mut self) -> Result<(), DtError> {
        let mut depth = 1u32;
        while depth > 0 {
            match self.next()? {
                // Cannot overflow: every level took at least eight bytes of the block.
                Token::Begin(_) => depth += 1,
                Token::End => depth -= 1,
                Token::Property { .. } => {}
                Token::Finish => return Err(DtError::EndsEarly(self.offset())),
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<u32, DtError> {
        let rest = self.rest();
        let word = word(rest, 0).ok_or(DtError::EndsEarly(self.offset()))?;
        self.at += 4;
        Ok(word)
    }

    /// `length` bytes and the padding to the next cell (which the block's end may cut off).
    fn bytes(&mut self, length: usize) -> Result<&'dt [u8], DtError> {
        let bytes = self.rest().get(..length).ok_or(DtError::EndsEarly(self.offset()))?;
        self.at += length.next_multiple_of(4);
        Ok(bytes)
    }

    /// A NUL-terminated name and its padding, without the NUL.
    fn name(&mut self) -> Result<&'dt [u8], DtError> {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| byte == 0).ok_or(DtError::EndsEarly(self.offset()))?;
        let name = self.bytes(length + 1)?;
        Ok(name.get(..length).unwrap_or(name))
    }

    fn rest(&self) -> &'dt [u8] {
        self.structure.get(self.at..).unwrap_or(&[])
    }
}
