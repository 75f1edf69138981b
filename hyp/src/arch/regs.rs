//! A vCPU's general-purpose registers, in the two shapes they are saved in.

/// All of them, as `guest_enter` loads and stores them.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct GuestRegs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where to resume: ELR_EL2.
    pub pc: u64,
    /// With which PSTATE: SPSR_EL2.
    pub pstate: u64,
}

/// Only those that a Rust function may clobber (AAPCS64): what a common exit
/// saves on the CPU's stack. The others, x19 to x29, are still live in the
/// processor.
#[repr(transparent)]
pub struct FastFrame(Frame);

/// The same frame once the others have been saved as well, for an instruction
/// that names one of them.
#[repr(transparent)]
pub struct WholeFrame(Frame);

/// What vectors.S lays out on the CPU's stack.
#[repr(C, align(16))]
struct Frame {
    /// x0 to x18.
    clobbered: [u64; 19],
    /// x30.
    lr: u64,
    /// x19 to x29; meaningful in a [`WholeFrame`] only.
    kept: [u64; 11],
    regs: *mut GuestRegs,
    vcpu: *const (),
    /// Where a load into the zero register goes, in a [`WholeFrame`].
    sink: u64,
}

/// Access to registers by number, as instructions name them.
pub trait Gprs {
    /// Register `number` (31 is the zero register); `None` if it is not here.
    fn get(&self, number: u8) -> Option<u64>;

    /// Where to put what goes into register `number`; `None` if it is not here.
    fn slot(&mut self, number: u8) -> Option<&mut u64>;
}

impl Gprs for GuestRegs {
    #[inline]
    fn get(&self, number: u8) -> Option<u64> {
        Some(self.x.get(usize::from(number)).copied().unwrap_or(0))
    }

    #[inline]
    fn slot(&mut self, number: u8) -> Option<&mut u64> {
        self.x.get_mut(usize::from(number))
    }
}

// x30 is here too, but compilers hardly ever move data through it: leaving it to
// the whole frame saves every other access a compare.
impl Gprs for FastFrame {
    #[inline]
    fn get(&self, number: u8) -> Option<u64> {
        match number {
            0..19 => self.0.clobbered.get(usize::from(number)).copied(),
            31 => Some(0),
            _ => None,
        }
    }

    #[inline]
    fn slot(&mut self, number: u8) -> Option<&mut u64> {
        self.0.clobbered.get_mut(usize::from(number))
    }
}

impl Gprs for WholeFrame {
    #[inline]
    fn get(&self, number: u8) -> Option<u64> {
        match number {
            0..19 => self.0.clobbered.get(usize::from(number)).copied(),
            19..30 => self.0.kept.get(usize::from(number) - 19).copied(),
            30 => Some(self.0.lr),
            _ => Some(0),
        }
    }

    #[inline]
    fn slot(&mut self, number: u8) -> Option<&mut u64> {
        match number {
            0..19 => self.0.clobbered.get_mut(usize::from(number)),
            19..30 => self.0.kept.get_mut(usize::from(number) - 19),
            30 => Some(&mut self.0.lr),
            // An instruction that throws its result away is done all the same:
            // compilers load like that from registers whose read has an effect.
            _ => Some(&mut self.0.sink),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FastFrame, Frame, Gprs, GuestRegs, WholeFrame};
    use core::mem::offset_of;

    fn frame() -> Frame {
        let (clobbered, kept) = (core::array::from_fn(|n| n as u64), core::array::from_fn(|n| n as u64 + 19));
        Frame { clobbered, lr: 30, kept, regs: core::ptr::null_mut(), vcpu: core::ptr::null(), sink: 0 }
    }

    #[test]
    fn layouts_are_what_vectors_s_says() {
        assert_eq!(offset_of!(GuestRegs, pc), 248);
        assert_eq!(offset_of!(GuestRegs, pstate), 256);
        assert_eq!(offset_of!(Frame, lr), 152);
        assert_eq!(offset_of!(Frame, kept), 160);
        assert_eq!(offset_of!(Frame, regs), 248);
        assert_eq!(offset_of!(Frame, vcpu), 256);
        assert_eq!(size_of::<Frame>(), 272);
    }

    #[test]
    fn register_31_reads_zero_whatever_was_put_there() {
        let mut whole = WholeFrame(frame());
        *whole.slot(31).expect("a load into it has to go somewhere") = 7;
        assert_eq!((whole.get(31), GuestRegs::default().get(31)), (Some(0), Some(0)));
    }

    #[test]
    fn a_fast_frame_has_what_vectors_s_saves_but_the_link_register() {
        let mut frame = FastFrame(frame());
        let readable: Vec<u8> = (0..32).filter(|&n| frame.get(n).is_some()).collect();
        let writable: Vec<u8> = (0..32).filter(|&n| frame.slot(n).is_some()).collect();
        assert_eq!(readable, (0..19).chain([31]).collect::<Vec<u8>>());
        assert_eq!(writable, (0..19).collect::<Vec<u8>>());
    }

    #[test]
    fn a_whole_frame_has_every_register_in_its_place() {
        let mut frame = WholeFrame(frame());
        for number in 0..31 {
            assert_eq!(frame.get(number), Some(u64::from(number)));
            assert_eq!(frame.slot(number).copied(), Some(u64::from(number)));
        }
    }
}
