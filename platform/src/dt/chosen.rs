//! `/chosen`: what the boot loader says about this boot.

use super::{
    DtError, Node, Region, Walk,
    value::{cells, text},
};

/// The properties of `/chosen` that a hypervisor obeys; empty where absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chosen<'dt> {
    /// The command line.
    pub bootargs: &'dt [u8],
    /// The console: a path or alias, with options after a colon.
    pub stdout: &'dt [u8],
    /// The initial ramdisk.
    pub initrd: Option<Region>,
    /// Random bytes from the firmware (`rng-seed`).
    pub rng_seed: &'dt [u8],
}

impl<'dt> Chosen<'dt> {
    /// Goes to `/chosen` and reads it; all absent if there is no such node.
    pub fn find(walk: &mut Walk<'dt>) -> Result<Self, DtError> {
        Ok(walk.find(b"/chosen")?.map(|node| Self::read(&node)).unwrap_or_default())
    }

    /// Reads `node`, which is `/chosen`.
    pub fn read(node: &Node<'_, 'dt>) -> Self {
        let string = |name| node.property(name).map(text);
        Self {
            bootargs: string(b"bootargs").unwrap_or(&[]),
            stdout: string(b"stdout-path").or_else(|| string(b"linux,stdout-path")).unwrap_or(&[]),
            rng_seed: node.property(b"rng-seed").unwrap_or(&[]),
            initrd: initrd(node.property(b"linux,initrd-start"), node.property(b"linux,initrd-end")),
        }
    }
}

/// The range between two addresses, each of one cell or two, whichever the boot loader chose to write.
fn initrd(start: Option<&[u8]>, end: Option<&[u8]>) -> Option<Region> {
    let address = |value: &[u8]| cells(value, 0, value.len() / 4);
    let base = address(start?)?;
    let size = address(end?)?.checked_sub(base).filter(|&size| size > 0)?;
    Some(Region { base, size })
}

/// The value of `name=value` among the words of a command line; the last one wins.
pub fn option<'a>(bootargs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    for argument in bootargs.split(|&byte| byte == b' ') {
        if let Some([b'=', value @ ..]) = argument.strip_prefix(name) {
            found = Some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_a_whole_word() {
        assert_eq!(option(b"quiet entresol.console=serial1 x", b"entresol.console"), Some(&b"serial1"[..]));
        assert_eq!(option(b"noentresol.console=serial1", b"entresol.console"), None);
        assert_eq!(option(b"entresol.console", b"entresol.console"), None);
    }

    #[test]
    fn the_last_of_two_equal_options_wins() {
        assert_eq!(option(b"a=1 a=2", b"a"), Some(&b"2"[..]));
    }

    #[test]
    fn an_initrd_that_ends_before_it_starts_is_none() {
        let (low, high) = (0x4800_0000u32.to_be_bytes(), 0x4800_1000u64.to_be_bytes());
        assert_eq!(initrd(Some(&low), Some(&high)), Some(Region { base: 0x4800_0000, size: 0x1000 }));
        assert_eq!(initrd(Some(&high), Some(&low)), None);
    }
}
