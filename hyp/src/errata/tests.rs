use super::{Effect, Effects, Midr};
use std::vec::Vec;

/// MIDR_EL1 of an Arm core.
const fn arm(part: u64, variant: u64, patch: u64) -> Midr {
    Midr::new(0x41 << 24 | variant << 20 | 0xf << 16 | part << 4 | patch)
}

fn numbers(midr: Midr) -> Vec<&'static str> {
    midr.errata().map(|erratum| erratum.number).collect()
}

/// As QEMU's models and the boards have them.
const A53: Midr = Midr::new(0x410f_d034);
const RASPBERRY_PI_4: Midr = Midr::new(0x410f_d083);
const RASPBERRY_PI_5: Midr = Midr::new(0x414f_d0b1);
const IMX93: Midr = Midr::new(0x412f_d050);
const AMPERE_ONE: Midr = Midr::new(0xc00f_ac30);

#[test]
fn cortex_a53_has_none() {
    assert_eq!(numbers(A53), Vec::<&str>::new());
}

#[test]
fn raspberry_pi_4_translates_speculatively() {
    assert_eq!(numbers(RASPBERRY_PI_4), ["1319367"]);
}

#[test]
fn raspberry_pi_5_is_mended_but_for_the_last() {
    assert_eq!(numbers(RASPBERRY_PI_5), ["4193800"]);
}

#[test]
fn imx93_has_a_cortex_a55_of_revision_2() {
    assert_eq!(numbers(IMX93), ["2441007", "1530923", "1024718"]);
}

#[test]
fn revision_after_the_last_is_mended() {
    assert!(numbers(arm(0xd0b, 3, 0)).contains(&"1286807"));
    assert!(!numbers(arm(0xd0b, 3, 1)).contains(&"1286807"));
    assert!(numbers(arm(0xd07, 1, 2)).contains(&"834220"));
    assert!(!numbers(arm(0xd07, 1, 3)).contains(&"834220"));
}

#[test]
fn same_part_of_another_maker_is_another_core() {
    assert_eq!(numbers(arm(0xd49, 0, 0)), ["4193789"]);
    assert_eq!(numbers(Midr::new(0x6d0f_d490)), ["4193789"]);
    assert_eq!(numbers(Midr::new(0x4e0f_d490)), Vec::<&str>::new());
}

#[test]
fn ampere_one_gets_no_hardware_access_flag_and_so_no_dirty_state() {
    let effects = Effects::of([AMPERE_ONE]);
    assert!(!effects.allow_access_flag() && !effects.allow_dirty_state());
    assert!(!effects.has(Effect::IncompleteInvalidation));
}

#[test]
fn one_affected_core_is_enough() {
    let effects = Effects::of([A53, IMX93, A53]);
    assert!(effects.allow_access_flag() && !effects.allow_dirty_state());
    let effects = Effects::of([A53, A53]);
    assert!(effects.allow_access_flag() && effects.allow_dirty_state());
}

#[test]
fn every_effect_has_its_own_bit() {
    use Effect::{AccessFlag, DirtyState, FaultAddress, IncompleteInvalidation, SpeculativeTranslation};
    let all = [IncompleteInvalidation, SpeculativeTranslation, AccessFlag, DirtyState, FaultAddress];
    assert_eq!(all.iter().fold(0, |bits, effect| bits | effect.bit()), 0b1_1111);
}

#[test]
fn unknown_core_is_printed_as_its_register() {
    assert_eq!(Midr::new(0x000f_0510).to_string(), "core 0x000f0510");
    assert_eq!(RASPBERRY_PI_4.to_string(), "Cortex-A72 r0p3");
}
