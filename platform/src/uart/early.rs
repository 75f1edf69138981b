//! Which UART is the console, found before anything else works.
//!
//! The order: `entresol.console=` on the command line, `stdout-path`, alias `serial0`, the first usable UART in
//! the tree. What is named but cannot be used is reported to the caller and the next choice is tried, so that a
//! board whose `stdout-path` is a framebuffer still speaks.
//!
//! `entresol.console=` takes a path, an alias, or `kind,address` (`pl011,0xfe201000`) for boards whose tree lacks
//! the UART; kinds are `pl011`, `bcm2835-aux`, `imx`, `lpuart`, `ns16550`, `ns16550-32` and `cadence`.
//!
//! This code (and all of `dt` that it uses) runs before the MMU is on, at whatever address the image was loaded:
//! no tables of pointers, no function pointers or trait objects, no formatting, no panics.

use super::{Kind, Uart, UartInfo};
use crate::dt::{Chosen, DtError, Interrupts, NodeRef, Tree, Walk, option};

/// The command-line option that overrides `stdout-path`.
pub const OPTION: &[u8] = b"entresol.console";

/// The UART to use for the first messages; `None` if the tree is damaged or has none that we drive.
pub fn find(blob: &[u8]) -> Option<UartInfo> {
    let tree = Tree::new(blob).ok()?;
    let mut walk = Walk::new(&tree);
    let chosen = Chosen::find(&mut walk).ok()?;
    Some(select(&mut walk, &chosen, |_| {}).ok()??.info)
}

/// How often a full transmitter is looked at before a byte is given up: a fraction of a second on any board, and
/// many times what a byte takes at 9600 baud. Without a limit, a UART whose clock is off would stop the boot mutely.
const PATIENCE: u32 = if cfg!(test) { 4 } else { 1 << 20 };

/// Sends `byte`, waiting for room.
pub fn put_blocking(uart: &Uart, byte: u8) {
    for _ in 0..PATIENCE {
        if uart.try_put(byte) {
            return;
        }
        core::hint::spin_loop();
    }
}

/// The selected console and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Console<'dt> {
    /// The UART, its interrupt not yet decoded.
    pub info: UartInfo,
    /// Its node; `None` if it was given by address.
    pub node: Option<NodeRef<'dt>>,
    /// Its interrupts, for whoever knows the interrupt controller.
    pub interrupts: Option<Interrupts<'dt>>,
}

/// A console that was asked for and passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOver<'dt> {
    /// This name leads to no node (nor is it `kind,address`).
    NotFound(&'dt [u8]),
    /// This node is no UART we drive.
    Unsupported(NodeRef<'dt>),
    /// This node's `status` is not `okay`: touching an unclocked UART can stop the bus.
    Disabled(NodeRef<'dt>),
}

/// Selects the console and calls `report` for each one that was asked for in vain.
pub fn select<'dt>(
    walk: &mut Walk<'dt>,
    chosen: &Chosen<'dt>,
    mut report: impl FnMut(PassedOver<'dt>),
) -> Result<Option<Console<'dt>>, DtError> {
    if let Some(name) = option(chosen.bootargs, OPTION) {
        if let Some(info) = by_address(name) {
            return Ok(Some(Console { info, node: None, interrupts: None }));
        }
        match by_name(walk, name)? {
            Ok(console) => return Ok(Some(console)),
            Err(passed_over) => report(passed_over),
        }
    }
    if !chosen.stdout.is_empty() {
        match by_name(walk, chosen.stdout)? {
            Ok(console) => return Ok(Some(console)),
            Err(passed_over) => report(passed_over),
        }
    }
    match by_name(walk, b"serial0")? {
        Ok(console) => Ok(Some(console)),
        Err(_) => first(walk),
    }
}

fn by_name<'dt>(
    walk: &mut Walk<'dt>,
    name: &'dt [u8],
) -> Result<Result<Console<'dt>, PassedOver<'dt>>, DtError> {
    let Some(node) = walk.find_by_name(name)? else { return Ok(Err(PassedOver::NotFound(name))) };
    let reference = node.reference();
    if !node.is_enabled() {
        return Ok(Err(PassedOver::Disabled(reference)));
    }
    let Some(info) = UartInfo::from_node(&node) else { return Ok(Err(PassedOver::Unsupported(reference))) };
    Ok(Ok(Console { info, node: Some(reference), interrupts: Some(node.interrupts()) }))
}

/// The first enabled UART that we drive.
fn first<'dt>(walk: &mut Walk<'dt>) -> Result<Option<Console<'dt>>, DtError> {
    walk.root()?;
    while let Some(node) = walk.advance()? {
        if node.is_enabled()
            && let Some(info) = UartInfo::from_node(&node)
        {
            let node_reference = Some(node.reference());
            return Ok(Some(Console { info, node: node_reference, interrupts: Some(node.interrupts()) }));
        }
    }
    Ok(None)
}

/// `kind,address`.
fn by_address(value: &[u8]) -> Option<UartInfo> {
    let comma = value.iter().position(|&byte| byte == b',')?;
    let (kind, address) = value.split_at_checked(comma)?;
    let kind = Kind::of_name(kind)?;
    let digits = address.strip_prefix(b",0x")?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut base = 0;
    for &digit in digits {
        base = base << 4 | u64::from((digit as char).to_digit(16)?);
    }
    Some(UartInfo { kind, base, interrupt: None, clock: None })
}

#[cfg(test)]
mod tests;
