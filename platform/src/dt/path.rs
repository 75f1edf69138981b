//! Naming nodes: aliases and paths in, paths out.

use core::fmt;

use super::{
    DtError, Node, Tree, Walk,
    token::{Token, Tokens},
    value::text,
    walk::MAX_DEPTH,
};

impl<'dt> Walk<'dt> {
    /// Moves to the node that `name` means: a path (`/soc/serial@7e201000`) or an alias with an optional path below
    /// it (`serial0`). Options after a colon (`:115200n8`) are ignored.
    pub fn find_by_name(&mut self, name: &[u8]) -> Result<Option<Node<'_, 'dt>>, DtError> {
        let end = name.iter().position(|&byte| byte == b':').unwrap_or(name.len());
        let name = name.get(..end).unwrap_or(name);
        if name.starts_with(b"/") {
            return self.find(name);
        }
        let end = name.iter().position(|&byte| byte == b'/').unwrap_or(name.len());
        let Some((alias, below)) = name.split_at_checked(end) else { return Ok(None) };
        let aliases = self.find(b"/aliases")?;
        let Some(path) = aliases.and_then(|node| node.property(alias)) else { return Ok(None) };
        if self.find(text(path))?.is_none() {
            return Ok(None);
        }
        self.follow(below)
    }
}

impl<'dt> Walk<'dt> {
    /// Moves to the node that others refer to as `phandle`.
    pub fn find_by_phandle(&mut self, phandle: u32) -> Result<Option<Node<'_, 'dt>>, DtError> {
        self.root()?;
        while let Some(node) = self.advance()? {
            if node.phandle() == Some(phandle) {
                // The borrow of `node` ends here; the walk still stands on it.
                break;
            }
        }
        let node = self.node();
        Ok(node.filter(|node| node.phandle() == Some(phandle)))
    }
}

/// A node remembered by its place in the structure block. Prints as its path.
#[derive(Clone, Copy)]
pub struct NodeRef<'dt> {
    tree: Tree<'dt>,
    offset: u32,
}

impl<'dt> NodeRef<'dt> {
    pub(crate) fn new(tree: Tree<'dt>, offset: u32) -> Self {
        Self { tree, offset }
    }

    /// Where the node begins in the structure block.
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    /// The names on the way from the root (whose name is empty) to this node.
    fn trail(&self) -> Result<heapless::Vec<&'dt [u8], MAX_DEPTH>, DtError> {
        let mut trail = heapless::Vec::new();
        let mut tokens = Tokens::new(&self.tree);
        loop {
            let offset = tokens.offset();
            match tokens.next()? {
                Token::Begin(name) => {
                    if trail.push(name).is_err() {
                        tokens.skip_node()?;
                    } else if offset >= self.offset {
                        return Ok(trail);
                    }
                }
                Token::End => {
                    trail.pop();
                }
                Token::Property => {}
                Token::Finish => return Err(DtError::EndsEarly(offset)),
            }
        }
    }
}

impl fmt::Display for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(trail) = self.trail() else { return write!(f, "(node at {:#x})", self.offset) };
        if trail.len() < 2 {
            return write!(f, "/");
        }
        for name in trail.iter().skip(1) {
            write!(f, "/{}", name.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRef({self})")
    }
}

impl PartialEq for NodeRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl Eq for NodeRef<'_> {}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{
        super::testing::{Blob, TreeBuilder},
        *,
    };

    fn tree() -> Blob {
        TreeBuilder::new()
            .begin("aliases")
            .text("serial0", "/soc/serial@10")
            .end()
            .begin("soc")
            .begin("serial@1")
            .end()
            .begin("serial@10")
            .begin("modem")
            .end()
            .end()
            .build()
    }

    /// The path of the node that `name` means.
    fn resolve(name: &str) -> Option<std::string::String> {
        let blob = tree();
        let tree = Tree::new(&blob).expect("valid header");
        let mut walk = Walk::new(&tree);
        let node = walk.find_by_name(name.as_bytes()).expect("valid tree")?;
        Some(node.reference().to_string())
    }

    #[test]
    fn an_alias_with_options_is_its_path() {
        assert_eq!(resolve("serial0:115200n8").as_deref(), Some("/soc/serial@10"));
    }

    #[test]
    fn a_path_with_options_is_the_path() {
        assert_eq!(resolve("/soc/serial@1:115200").as_deref(), Some("/soc/serial@1"));
    }

    #[test]
    fn a_path_may_continue_below_an_alias() {
        assert_eq!(resolve("serial0/modem").as_deref(), Some("/soc/serial@10/modem"));
    }

    #[test]
    fn an_unknown_alias_is_nothing() {
        assert_eq!(resolve("serial1"), None);
        assert_eq!(resolve(""), None);
    }

    #[test]
    fn the_root_prints_as_a_slash() {
        assert_eq!(resolve("/").as_deref(), Some("/"));
    }
}
