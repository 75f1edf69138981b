//! The cases: one file for each claim, named like it.

use crate::kit::Case;

/// Lists cases by the names of their files.
macro_rules! cases {
    ($($name:ident)*) => {
        $(mod $name;)*

        /// All cases, in the order in which they run.
        pub(crate) const ALL: &[Case] = &[$(Case { name: stringify!($name), run: $name::run }),*];
    };
}

cases! {
    every_cpu_reports_in
    el2_memory_is_writable_or_executable
    timer_fires_when_due_and_not_before
    late_timer_waits_for_other_interrupts
    kick_reaches_only_its_target
    frames_come_zeroed
    list_registers_keep_what_is_written
    simd_registers_survive_unloading
    stage2_lookup_agrees_with_the_processor
    guest_call_changes_x0_only
    guest_access_to_hole_is_its_data_abort
    guest_unknown_register_is_undefined
    unmapped_page_is_gone_from_a_guest
}
