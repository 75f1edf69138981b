//! The keeper, over VMs made of host memory.

use super::{ALIVE, BUDGET, Ending, Keeper, start};
use crate::guest::image::Segment;
use crate::guest::layout::{RAM_BASE, UART_INTID};
use crate::irq;
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;
use crate::vgic::Level;
use crate::vm::testing::{guest_bytes, vm, vm_with};
use crate::vm::{State, Vm};
use crate::vpsci::Power;
use core::sync::atomic::Ordering;

/// Starts a VM. Another one stays alive for good, so that no end here is the last.
fn started(vm: &Vm) -> Keeper {
    ALIVE.fetch_add(1, Ordering::Relaxed);
    start(vm).expect("it is off");
    Keeper::default()
}

/// Advances until there is nothing left to do; in how many pieces.
fn finish(keeper: &mut Keeper, vm: &Vm) -> usize {
    (0..1000).take_while(|_| keeper.advance(vm)).count()
}

/// A running VM with these lines in its manifest.
fn running(lines: &str) -> (&'static Vm, Keeper) {
    let vm = vm_with(2, lines, Vec::new());
    let mut keeper = started(vm);
    finish(&mut keeper, vm);
    assert_eq!(vm.state(), State::Running);
    (vm, keeper)
}

/// Ends the VM, and how that went: the state that the keeper then left it in.
fn after(vm: &Vm, keeper: &mut Keeper, ending: Ending) -> State {
    vm.end(ending).expect("it runs");
    finish(keeper, vm);
    vm.state()
}

mod start {
    use super::*;

    #[test]
    fn switches_the_first_vcpu_on_and_no_other() {
        let (vm, _) = running("");
        let power: Vec<Power> = vm.vcpus().iter().map(|vcpu| vcpu.power.get()).collect();
        assert_eq!(power, [Power::OnPending, Power::Off]);
    }

    #[test]
    fn passes_entry_and_device_tree() {
        let (vm, _) = running("");
        let start = vm.vcpus()[0].power.take_start().expect("it is on");
        assert_eq!((start.entry, start.context), (RAM_BASE, RAM_BASE + 0x10_0000));
    }

    #[test]
    fn of_a_vm_that_runs_is_refused() {
        let (vm, _) = running("");
        assert_eq!(super::start(vm), Err(State::Running));
    }

    #[test]
    fn puts_every_segment_where_it_belongs_and_zeroes_behind_it() {
        let segments = vec![
            Segment { ipa: RAM_BASE + 100, data: b"kernel", zeroes: 3 },
            Segment { ipa: RAM_BASE, data: &[], zeroes: 0 },
            Segment { ipa: RAM_BASE + 200, data: b"tree", zeroes: 0 },
        ];
        let vm = vm_with(1, "", segments);
        vm.memory.write(RAM_BASE, &[0xff; 300]).expect("inside");
        finish(&mut started(vm), vm);
        assert_eq!(guest_bytes(vm, RAM_BASE + 99, 11), b"\xffkernel\0\0\0\xff");
        assert_eq!(guest_bytes(vm, RAM_BASE + 199, 6), b"\xfftree\xff");
    }

    #[test]
    fn copies_in_pieces_and_does_not_lose_a_byte_between_them() {
        let data: Vec<u8> = (0..BUDGET as usize * 2 + 17).map(|n| (n / 7) as u8).collect();
        let data: &'static [u8] = data.leak();
        let vm = vm_with(1, "", vec![Segment { ipa: RAM_BASE + 3, data, zeroes: BUDGET + 1 }]);
        let pieces = finish(&mut started(vm), vm);
        assert_eq!(guest_bytes(vm, RAM_BASE + 3, data.len()), data);
        // Three of data, two of zeroes, and the launch.
        assert_eq!(pieces, 6);
    }

    #[test]
    fn with_a_segment_outside_memory_leaves_the_vm_off() {
        let vm = vm_with(1, "", vec![Segment { ipa: RAM_BASE - 1, data: b"k", zeroes: 0 }]);
        finish(&mut started(vm), vm);
        assert_eq!(vm.state(), State::Off);
    }

    #[test]
    fn is_another_run_each_time() {
        let (vm, mut keeper) = running("");
        let first = vm.run();
        after(vm, &mut keeper, Ending::Restart);
        assert_eq!((vm.run(), vm.state()), (first + 1, State::Running));
    }
}

mod end {
    use super::*;

    #[test]
    fn waits_for_every_vcpu_to_let_go() {
        let (vm, mut keeper) = running("");
        assert!(vm.unpark(1));
        assert_eq!(after(vm, &mut keeper, Ending::Stop), State::Ending);
        vm.park(1);
        finish(&mut keeper, vm);
        assert_eq!(vm.state(), State::Off);
    }

    #[test]
    fn switches_every_vcpu_off() {
        let (vm, mut keeper) = running("");
        after(vm, &mut keeper, Ending::Stop);
        assert!(vm.vcpus().iter().all(|vcpu| vcpu.power.get() == Power::Off));
    }

    #[test]
    fn does_what_the_manifest_says() {
        let (vm, mut keeper) = running("on-poweroff = \"restart\"\non-crash = \"stop\"");
        assert_eq!(after(vm, &mut keeper, Ending::PowerOff), State::Running);
        assert_eq!(after(vm, &mut keeper, Ending::Crash), State::Off);
    }

    #[test]
    fn by_hand_does_what_the_hand_says() {
        let (vm, mut keeper) = running("on-poweroff = \"restart\"");
        assert_eq!(after(vm, &mut keeper, Ending::Restart), State::Running);
        assert_eq!(after(vm, &mut keeper, Ending::Stop), State::Off);
    }

    /// Whom vCPU 1 wakes by enabling the UART's interrupt, as the next run will.
    fn woken_by_enabling_the_uart(vm: &Vm) -> VcpuSet {
        let write = |offset, value| {
            irq::with_list_registers(vm.vgic.version(), |lrs| {
                vm.vgic.dist_write(1, offset, Width::Word, value, lrs)
            })
        };
        let _ = write(0x000, 2); // GICD_CTLR: group 1
        write(0x104, 1 << (UART_INTID.raw() % 32)) // GICD_ISENABLER1
    }

    #[test]
    fn lowers_the_line_of_the_uart() {
        let (vm, mut keeper) = running("");
        // UARTIMSC.TXIM, then a byte: there is room for more.
        let _ = vm.console.write(0x38, Width::Word, 1 << 5);
        let _ = vm.console.write(0x00, Width::Word, u64::from(b'x'));
        let _ = vm.show_console_line();
        assert_eq!(vm.console.line(), Level::High);
        after(vm, &mut keeper, Ending::Stop);
        assert_eq!(woken_by_enabling_the_uart(vm), VcpuSet::EMPTY);
    }
}

mod restarts_in_a_row {
    use super::*;

    const TWICE: &str = "on-crash = \"restart\"\non-reboot = \"restart\"\nmax-restarts = 2";

    #[test]
    fn end_at_the_limit() {
        let (vm, mut keeper) = running(TWICE);
        let states = [(); 3].map(|()| after(vm, &mut keeper, Ending::Crash));
        assert_eq!(states, [State::Running, State::Running, State::Off]);
    }

    #[test]
    fn are_forgotten_after_a_reboot() {
        let (vm, mut keeper) = running(TWICE);
        let endings = [Ending::Crash, Ending::Crash, Ending::Reboot, Ending::Crash];
        let states = endings.map(|ending| after(vm, &mut keeper, ending));
        assert_eq!(states, [State::Running; 4]);
    }

    #[test]
    fn are_forgotten_when_somebody_starts_it_by_hand() {
        let (vm, mut keeper) = running(TWICE);
        for _ in 0..3 {
            after(vm, &mut keeper, Ending::Crash);
        }
        super::start(vm).expect("it is off");
        finish(&mut keeper, vm);
        assert_eq!(after(vm, &mut keeper, Ending::Crash), State::Running);
    }
}

#[test]
fn a_vm_that_is_off_needs_nothing() {
    assert!(!Keeper::default().advance(vm(1)));
}
