//! Calls by HVC and SMC: the SMC Calling Convention 1.2 (DEN 0028).
//!
//! A guest has no firmware but EL2, so both instructions mean the same; only where
//! the guest goes on differs ([`Conduit`]). [`answer_at_once`] is the short way for
//! the commonest call; [`call`] sorts any call by its function identifier and has
//! `vpsci` answer PSCI's. What nobody offers returns NOT_SUPPORTED, as the convention
//! wants, so a guest may probe freely.
//!
//! An HVC or SMC with an immediate other than zero is no call of this convention
//! and, like any instruction that this machine lacks, [undefined](is_call).
//!
//! Registers: an outcome changes X0 (or W0 to W3) and nothing else. X4 to X17 are
//! kept, which version 1.2 promises.

use crate::vpsci::{self, Error, Outcome, PoweredVm};

/// SMCCC_VERSION.
const VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
const ARCH_FEATURES: u32 = 0x8000_0001;
/// Vendor Specific Hypervisor Service: Call UID.
const HYPERVISOR_UID: u32 = 0x8600_ff01;
/// Vendor Specific Hypervisor Service: Revision.
const HYPERVISOR_REVISION: u32 = 0x8600_ff03;

/// SMCCC 1.2.
const IMPLEMENTED_VERSION: u64 = 1 << 16 | 2;

/// Entresol's UUID, a980c744-56e4-431e-bc4a-40f2eb025e45, as W0 to W3 hold it.
const ENTRESOL: [u32; 4] = [0x44c7_80a9, 0x1e43_e456, 0xf240_4abc, 0x455e_02eb];

/// Revision 0.1 of the (as yet empty) vendor specific hypervisor service.
const REVISION: [u32; 4] = [0, 1, 0, 0];

/// The instruction that made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC: ELR_EL2 is behind it.
    Hvc,
    /// SMC, trapped: ELR_EL2 is the SMC itself.
    Smc,
}

impl Conduit {
    /// Where the guest goes on after the call, given ELR_EL2.
    #[inline]
    pub const fn next(self, elr: u64) -> u64 {
        match self {
            Self::Hvc => elr,
            Self::Smc => elr.wrapping_add(4),
        }
    }

    /// Where the instruction is, given ELR_EL2: the preferred return address if it is undefined.
    #[inline]
    pub const fn instruction(self, elr: u64) -> u64 {
        match self {
            Self::Hvc => elr.wrapping_sub(4),
            Self::Smc => elr,
        }
    }
}

/// Whether an HVC or SMC with this immediate is a call; if not, it is undefined.
#[inline]
pub const fn is_call(immediate: u16) -> bool {
    immediate == 0
}

/// The answer to a call that needs nothing but its identifier, X0: PSCI_VERSION.
///
/// For the caller to try first and in line, since this is what guests measure a hypercall by.
/// [`call`] knows the answer as well.
#[inline]
pub const fn answer_at_once(x0: u64) -> Option<u64> {
    if x0 as u32 == vpsci::VERSION { Some(vpsci::IMPLEMENTED_VERSION) } else { None }
}

/// Answers a call of vCPU `caller` with X0 to X3 as `arguments`.
pub fn call([function, arguments @ ..]: [u64; 4], caller: u64, vm: &impl PoweredVm) -> Outcome {
    // The identifier is W0; the upper half may hold anything.
    match function as u32 {
        VERSION => Outcome::Return(IMPLEMENTED_VERSION),
        ARCH_FEATURES => arch_feature(arguments[0] as u32).into(),
        HYPERVISOR_UID => Outcome::ReturnFour(ENTRESOL),
        HYPERVISOR_REVISION => Outcome::ReturnFour(REVISION),
        function => vpsci::call(function, arguments, caller, vm),
    }
}

/// SMCCC_ARCH_FEATURES.
///
/// The workarounds for speculation (0x8000_8000, 0x8000_7fff, 0x8000_3fff) are not
/// supported rather than "not needed": EL2 does not run them, and which CPUs need
/// them is for the guest to know from MIDR_EL1 and the CSV2 and SSBS fields.
fn arch_feature(function: u32) -> Result<u64, Error> {
    match function {
        VERSION | ARCH_FEATURES => Ok(0),
        _ => Err(Error::NotSupported),
    }
}

#[cfg(test)]
mod tests {
    use super::{Conduit, Outcome, PoweredVm, answer_at_once, call, is_call};
    use crate::vpsci::{Power, PowerState};

    const NOT_SUPPORTED: Outcome = Outcome::Return(u64::MAX);

    /// A VM with a single vCPU.
    struct OneVcpu(PowerState);

    impl PoweredVm for OneVcpu {
        fn power(&self, index: u64) -> Option<&PowerState> {
            (index == 0).then_some(&self.0)
        }

        fn is_ram(&self, _: u64) -> bool {
            true
        }
    }

    fn answer(x0: u64, x1: u64) -> Outcome {
        call([x0, x1, 0, 0], 0, &OneVcpu(PowerState::off()))
    }

    #[test]
    fn psci_version_is_answered() {
        assert_eq!(answer(0x8400_0000, 0), Outcome::Return(0x0001_0001));
    }

    #[test]
    fn only_psci_version_is_answered_at_once() {
        let answers = [0xffff_ffff_8400_0000, 0x8400_0001, 0xc400_0000].map(answer_at_once);
        assert_eq!(answers, [Some(0x0001_0001), None, None]);
    }

    #[test]
    fn upper_half_of_the_identifier_is_ignored() {
        assert_eq!(answer(0xffff_ffff_8400_0000, 0), Outcome::Return(0x0001_0001));
    }

    #[test]
    fn convention_is_version_one_point_two() {
        assert_eq!(answer(0x8000_0000, 0), Outcome::Return(0x0001_0002));
    }

    #[test]
    fn convention_features_are_its_two_functions() {
        let answers = [0x8000_0000, 0x8000_0001].map(|function| answer(0x8000_0001, function));
        assert_eq!(answers, [Outcome::Return(0); 2]);
    }

    #[test]
    fn workarounds_are_not_supported() {
        let answers = [0x8000_8000, 0x8000_7fff, 0x8000_3fff].map(|function| answer(0x8000_0001, function));
        assert_eq!(answers, [NOT_SUPPORTED; 3]);
    }

    #[test]
    fn true_random_numbers_are_not_supported() {
        assert_eq!(answer(0x8400_0050, 0), NOT_SUPPORTED);
    }

    #[test]
    fn yielding_calls_and_foreign_services_are_not_supported() {
        let answers = [0, 0x0400_0000, 0x8200_0000, 0xc600_0020].map(|function| answer(function, 0));
        assert_eq!(answers, [NOT_SUPPORTED; 4]);
    }

    #[test]
    fn hypervisor_names_itself() {
        let Outcome::ReturnFour(words) = answer(0x8600_ff01, 0) else { panic!("four words") };
        let bytes = words.map(u32::to_le_bytes).concat();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "a980c74456e4431ebc4a40f2eb025e45");
    }

    #[test]
    fn other_calls_reach_psci() {
        let vm = OneVcpu(PowerState::off());
        let outcome = call([0xc400_0003, 0, 0x4000_0000, 0], 0, &vm);
        assert_eq!((outcome, vm.0.get()), (Outcome::Started(0), Power::OnPending));
    }

    #[test]
    fn guest_goes_on_behind_either_instruction() {
        assert_eq!([Conduit::Hvc.next(0x1004), Conduit::Smc.next(0x1000)], [0x1004; 2]);
    }

    #[test]
    fn undefined_call_is_blamed_on_the_instruction() {
        assert_eq!([Conduit::Hvc.instruction(0x1004), Conduit::Smc.instruction(0x1000)], [0x1000; 2]);
    }

    #[test]
    fn other_immediates_are_no_calls() {
        assert_eq!([0, 1, 0x4a48, 0xffff].map(is_call), [true, false, false, false]);
    }

    #[test]
    fn hypervisor_service_is_revision_zero_point_one() {
        assert_eq!(answer(0x8600_ff03, 0), Outcome::ReturnFour([0, 1, 0, 0]));
    }

    proptest::proptest! {
        #[test]
        fn any_call_has_an_answer_and_starts_only_what_exists(x0: u64, service in 0u64..0x40, x1: u64, x2: u64) {
            for function in [x0, 0x8400_0000 | service, 0xc400_0000 | service] {
                let vm = OneVcpu(PowerState::off());
                if let Outcome::Started(index) = call([function, x1, x2, 0], 0, &vm) {
                    assert_eq!((index, vm.0.get()), (0, Power::OnPending));
                }
            }
        }
    }
}
