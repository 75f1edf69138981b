//! The claims, one file each; a file's name is its claim, its first line says it
//! in full, and `run` checks it.

use crate::kit::Case;
use crate::kit::Need::{GicV3, Hypervisor, TwoCpus};

mod all_sixteen_sgis_arrive;
mod any_call_returns;
mod claimed_features_work;
mod cpu_on_reports_what_is_wrong;
mod cpu_starts_and_stops_again_and_again;
mod cpu_suspend_wakes_on_pending_interrupt;
mod cpus_have_their_affinity;
mod deactivation_can_be_separate;
mod debug_registers_take_linux_writes;
mod disabled_interrupt_waits;
mod distributor_registers_read_back;
mod edge_while_active_comes_again;
mod every_device_offset_is_decided;
mod every_system_register_read_is_decided;
mod hole_access_is_data_abort;
mod hole_fetch_is_instruction_abort;
mod id_registers_agree_between_cpus;
mod interrupt_state_is_visible;
mod interrupts_arrive_between_exits;
mod level_comes_again_until_it_falls;
mod maintenance_completes;
mod masked_timer_stays_silent;
mod more_urgent_interrupt_comes_first;
mod more_urgent_interrupt_preempts;
mod odd_device_access_does_not_hang;
mod pointer_authentication_works;
mod priority_mask_holds_back;
mod psci_is_at_least_1_0;
mod ram_is_as_large_as_the_tree_says;
mod redistributor_of_another_cpu_can_be_set;
mod redistributors_describe_the_cpus;
mod registers_survive_calls;
mod registers_survive_sleep;
mod registers_survive_time;
mod registers_survive_traps;
mod sgi_reaches_only_its_target;
mod sgi_to_all_others_spares_the_sender;
mod sgis_cross_without_loss;
mod smc_answers_like_hvc;
mod spi_follows_its_route;
mod started_cpu_is_in_the_reset_state;
mod system_registers_survive_time;
mod time_does_not_go_backwards;
mod timer_fires_on_every_cpu;
mod timer_fires_once;
mod uart_identifies_itself;
mod uart_transmit_interrupt_arrives;
mod unknown_calls_are_not_supported;
mod unknown_system_register_is_undefined;
mod wfe_returns;
mod wfi_wakes_on_masked_interrupt;
mod wfi_wakes_on_sgi_from_another_cpu;

/// An entry of the table: the module's name, then what the claim needs.
macro_rules! case {
    ($name:ident $(, $need:ident)*) => {
        Case { name: stringify!($name), needs: &[$($need),*], run: $name::run }
    };
}

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Case] = &[
    case!(uart_identifies_itself),
    case!(registers_survive_calls),
    case!(registers_survive_traps),
    case!(registers_survive_sleep),
    case!(registers_survive_time),
    case!(system_registers_survive_time),
    case!(all_sixteen_sgis_arrive),
    case!(claimed_features_work),
    case!(cpu_on_reports_what_is_wrong, TwoCpus),
    case!(cpu_starts_and_stops_again_and_again, TwoCpus),
    case!(cpu_suspend_wakes_on_pending_interrupt),
    case!(cpus_have_their_affinity, TwoCpus),
    case!(debug_registers_take_linux_writes),
    case!(disabled_interrupt_waits),
    case!(distributor_registers_read_back),
    case!(hole_access_is_data_abort),
    case!(hole_fetch_is_instruction_abort),
    case!(id_registers_agree_between_cpus, TwoCpus),
    case!(interrupt_state_is_visible),
    case!(level_comes_again_until_it_falls),
    case!(maintenance_completes),
    case!(masked_timer_stays_silent),
    case!(more_urgent_interrupt_comes_first),
    case!(odd_device_access_does_not_hang),
    case!(pointer_authentication_works),
    case!(priority_mask_holds_back),
    case!(psci_is_at_least_1_0),
    case!(redistributors_describe_the_cpus, GicV3),
    case!(sgi_reaches_only_its_target, TwoCpus),
    case!(sgi_to_all_others_spares_the_sender, TwoCpus),
    case!(smc_answers_like_hvc, Hypervisor),
    case!(spi_follows_its_route, TwoCpus),
    case!(started_cpu_is_in_the_reset_state, TwoCpus),
    case!(time_does_not_go_backwards),
    case!(timer_fires_on_every_cpu, TwoCpus),
    case!(timer_fires_once),
    case!(uart_transmit_interrupt_arrives),
    case!(unknown_calls_are_not_supported, Hypervisor),
    case!(unknown_system_register_is_undefined),
    case!(wfe_returns),
    case!(wfi_wakes_on_masked_interrupt),
    case!(wfi_wakes_on_sgi_from_another_cpu, TwoCpus),
    case!(ram_is_as_large_as_the_tree_says),
    case!(more_urgent_interrupt_preempts),
    case!(edge_while_active_comes_again),
    case!(deactivation_can_be_separate),
    case!(interrupts_arrive_between_exits),
    case!(sgis_cross_without_loss, TwoCpus),
    case!(redistributor_of_another_cpu_can_be_set, TwoCpus, GicV3),
    // Last: they leave no register as it was.
    case!(every_system_register_read_is_decided),
    case!(any_call_returns, Hypervisor),
    case!(every_device_offset_is_decided),
];
