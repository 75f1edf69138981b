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
/// saves on the CPU's stack. The others are still live in the processor.
#[repr(C)]
pub struct FastFrame {
    x: [u64; 19],
    lr: u64,
    regs: *mut GuestRegs,
    vcpu: *const (),
}

/// Access to registers by number, as instructions name them.
pub trait Gprs {
    /// Register `number` (31 is the zero register); `None` if it is not here.
    fn get(&self, number: u8) -> Option<u64>;

    /// Writes register `number` (31 discards); `None` if it is not here.
    fn set(&mut self, number: u8, value: u64) -> Option<()>;
}

impl Gprs for GuestRegs {
    fn get(&self, number: u8) -> Option<u64> {
        Some(self.x.get(usize::from(number)).copied().unwrap_or(0))
    }

    fn set(&mut self, number: u8, value: u64) -> Option<()> {
        if let Some(x) = self.x.get_mut(usize::from(number)) {
            *x = value;
        }
        Some(())
    }
}

impl Gprs for FastFrame {
    fn get(&self, number: u8) -> Option<u64> {
        match number {
            0..19 => self.x.get(usize::from(number)).copied(),
            30 => Some(self.lr),
            31 => Some(0),
            _ => None,
        }
    }

    fn set(&mut self, number: u8, value: u64) -> Option<()> {
        match number {
            0..19 => *self.x.get_mut(usize::from(number))? = value,
            30 => self.lr = value,
            31 => {}
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{FastFrame, Gprs, GuestRegs};
    use core::mem::offset_of;

    #[test]
    fn layouts_are_what_vectors_s_says() {
        assert_eq!(offset_of!(GuestRegs, pc), 248);
        assert_eq!(offset_of!(GuestRegs, pstate), 256);
        assert_eq!(offset_of!(FastFrame, lr), 152);
        assert_eq!(offset_of!(FastFrame, regs), 160);
        assert_eq!(size_of::<FastFrame>(), 176);
    }

    #[test]
    fn register_31_reads_zero_and_ignores_writes() {
        let mut regs = GuestRegs::default();
        assert_eq!(regs.set(31, 7), Some(()));
        assert_eq!(regs.get(31), Some(0));
    }

    #[test]
    fn a_fast_frame_has_no_callee_saved_register() {
        let mut frame = FastFrame { x: [0; 19], lr: 0, regs: core::ptr::null_mut(), vcpu: core::ptr::null() };
        let here: Vec<u8> = (0..32).filter(|&n| frame.set(n, 1).is_some()).collect();
        let expected: Vec<u8> = (0..19).chain([30, 31]).collect();
        assert_eq!(here, expected);
    }
}
