//! Interrupt specifiers: which line of which controller, as a GIC interrupt number.
//!
//! A node's `interrupts` are read with the cell count of its interrupt parent. Only specifiers addressed to the
//! GIC (or to a controller that hands them on unchanged) are decoded; a line that passes through another
//! controller has no GIC number of its own.

use crate::intid::IntId;

use super::value::word;

/// How a line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Each edge is one interrupt.
    Edge,
    /// Pending for as long as the line is asserted.
    Level,
}

/// The GIC as other nodes refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// What `interrupt-parent` says; `None` if nobody can refer to it.
    pub phandle: Option<u32>,
    /// `#interrupt-cells`: 3, or 4 where PPIs are partitioned.
    pub cells: usize,
}

/// The interrupts of a node, undecoded.
#[derive(Clone, Copy, Debug)]
pub struct Interrupts<'dt> {
    kind: Kind,
    value: &'dt [u8],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Specifiers for this parent, or for the only controller there is.
    Inherited(Option<u32>),
    /// Each specifier is preceded by its controller's phandle.
    Extended,
}

impl<'dt> Interrupts<'dt> {
    pub(super) fn inherited(parent: Option<u32>, value: &'dt [u8]) -> Self {
        Self { kind: Kind::Inherited(parent), value }
    }

    pub(super) fn extended(value: &'dt [u8]) -> Self {
        Self { kind: Kind::Extended, value }
    }

    /// Whether the node raises no interrupt at all.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The phandle of the controller that the first interrupt goes to, if one is named.
    pub fn parent(&self) -> Option<u32> {
        match self.kind {
            Kind::Inherited(parent) => parent,
            Kind::Extended => word(self.value, 0),
        }
    }

    /// Interrupt number `index`, if it goes to `controller`.
    pub fn get(&self, index: usize, controller: &Controller) -> Option<(IntId, Trigger)> {
        match self.kind {
            Kind::Inherited(parent) => {
                if parent.is_some() && controller.phandle.is_some() && parent != controller.phandle {
                    return None;
                }
                decode(self.value, index.checked_mul(controller.cells)?)
            }
            // Entries for other controllers have a length that is not known here; trees that mix them put the
            // interrupts a boot needs on the GIC alone.
            Kind::Extended => {
                let at = index.checked_mul(controller.cells.checked_add(1)?)?;
                if word(self.value, at) != controller.phandle {
                    return None;
                }
                decode(self.value, at.checked_add(1)?)
            }
        }
    }
}

/// Decodes the GIC specifier at cell `at`: type, number, flags (Linux's "arm,gic" binding, its only home).
fn decode(value: &[u8], at: usize) -> Option<(IntId, Trigger)> {
    let kind = word(value, at)?;
    let number = word(value, at.checked_add(1)?)?;
    let flags = word(value, at.checked_add(2)?)?;
    let raw = match kind {
        0 => number.checked_add(32)?,
        1 if number < 16 => number + 16,
        _ => return None,
    };
    // 1 and 2 are the edges; 4 and 8 the levels; 0 "as it is", for which level is the GIC's reset value.
    let trigger = if flags & 0x3 != 0 { Trigger::Edge } else { Trigger::Level };
    Some((IntId::try_new(raw)?, trigger))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIC: Controller = Controller { phandle: Some(1), cells: 3 };

    fn bytes<const CELLS: usize>(cells: [u32; CELLS]) -> std::vec::Vec<u8> {
        cells.into_iter().flat_map(u32::to_be_bytes).collect()
    }

    #[test]
    fn type_zero_is_a_shared_interrupt() {
        let value = bytes([0, 1, 4]);
        assert_eq!(
            Interrupts::inherited(Some(1), &value).get(0, &GIC),
            Some((IntId::spi(1), Trigger::Level))
        );
    }

    #[test]
    fn the_second_specifier_follows_the_first() {
        let value = bytes([1, 13, 4, 1, 14, 1]);
        assert_eq!(
            Interrupts::inherited(Some(1), &value).get(1, &GIC),
            Some((IntId::ppi(14), Trigger::Edge))
        );
    }

    #[test]
    fn another_controllers_interrupt_has_no_gic_number() {
        let value = bytes([0, 1, 4]);
        assert_eq!(Interrupts::inherited(Some(2), &value).get(0, &GIC), None);
    }

    #[test]
    fn extended_specifiers_name_their_controller() {
        let value = bytes([1, 0, 7, 4, 2, 0, 9, 4]);
        let interrupts = Interrupts::extended(&value);
        assert_eq!(interrupts.get(0, &GIC), Some((IntId::spi(7), Trigger::Level)));
        assert_eq!(interrupts.get(1, &GIC), None);
    }

    #[test]
    fn numbers_outside_the_gic_are_refused() {
        let value = bytes([1, 16, 4, 0, 0xffff_ffff, 4, 0, 988, 4]);
        let interrupts = Interrupts::inherited(None, &value);
        assert!((0..3).all(|index| interrupts.get(index, &GIC).is_none()));
    }
}
