//! Entresol, the hypervisor: a library, so that everything above [`arch`] is
//! built and tested on the host as well, and a binary that says
//! what its CPUs do ([`program!`]) and adds the panic handler.
//!
//! ARCHITECTURE.md at the root of the repository says the same in more words,
//! and what this page leaves out: the address space of EL2, the stages of boot.
//!
//! # Execution model
//!
//! EL2 runs on every CPU without VHE, with interrupts masked, and never nests: an
//! exception taken *from* EL2 is a bug ([`crash`]). Entering a guest is a call
//! that returns, so each CPU's work is an ordinary loop ([`run`]). No lock is held
//! across a guest entry. There is a small fixed heap ([`mem::heap`]) for boot and
//! the making of VMs; no exit allocates, and nothing a guest chose sizes an allocation.
//!
//! A vCPU lives on one CPU, its home. What only the home touches is owned by its
//! loop ([`task`]); what others touch is atomics ([`vcpu`]). Failures are sorted by
//! blame: a guest that does something illegal gets an exception, a guest that can't go
//! on is reported and ended, and if we are wrong there is a crash record.
//!
//! # Boot, guest, exit
//!
//! 1. `arch/aarch64/boot.S` takes a CPU from the boot loader to the link address;
//!    [`boot`] takes it from there to its loop. On the way it reads the device tree
//!    (`platform`), fills the memory pool ([`mem`]), starts the interrupt controller
//!    ([`irq`]) and the other CPUs ([`smp`]), and makes VMs ([`create`]) of the
//!    [`bundle`].
//! 2. [`run::Loop`] picks a vCPU, moves it into the processor if it is not there
//!    ([`task::Task::load`]), and enters its guest ([`arch::run_guest`]).
//! 3. A trap or an interrupt calls a handler straight from the vector, with only
//!    the registers saved that Rust may clobber. Most exits end there: ID registers,
//!    the virtual GIC ([`vgic`]), the UART ([`vpl011`]), the virtual timer, and WFI
//!    on a CPU with a single vCPU.
//! 4. What they leave alone returns from `run_guest`, and [`trap::handle()`] does it: calls
//!    ([`vpsci`]), other WFIs, faults. Then the loop looks after what is due and goes on at 2.
//!
//! # Modules
//!
//! Pure ones take and give values and are where logic belongs:
//!
//! | module | what |
//! |---|---|
//! | [`bundle`] | the file with the guests: cpio, `vms.toml`, admission |
//! | [`guest`] | a guest's address map, device tree, and where its images go |
//! | [`exit`] | what ESR_EL2 says |
//! | [`errata`] | which cores do not do what the manual says |
//! | [`vgic`], [`vpl011`], [`vpsci`], [`vtimer`] | what a guest sees: interrupt controller, UART, firmware, physical timer |
//! | [`trap`]`::{advance, controls, inject, smccc, sysreg}` | what a trap means, and which there are |
//! | [`console`] | many consoles, a prompt and a log on one UART |
//! | [`vmid`] | which VMID a VM has, and how they are called in when they run out |
//! | [`mmio`], [`vcpu_set`] | two small types that many of them share |
//!
//! The others join them to the machine:
//!
//! | module | what |
//! |---|---|
//! | [`arch`] | instructions, system registers, assembly; has a twin for the host |
//! | [`boot`], [`smp`], [`percpu`], [`machine`] | CPUs come up, and the machine goes down |
//! | [`create`], [`vm`], [`lifecycle`] | VMs are made, started and ended |
//! | [`run`], [`task`], [`vcpu`] | the loop, and a vCPU's private and shared halves |
//! | [`trap`] | the handlers |
//! | [`irq`] | physical interrupts, the kick, list registers |
//! | [`mem`] | the pool, stage-2 tables, guest memory, the heap |
//! | [`terminal`], `commands`, [`log`], [`crash`] | the console on the UART, what the prompt does, log statements, crash records |
//! | [`seed`] | random seeds for guests |
//! | [`watchdog`] | the board's own, kept alive |
//!
//! # Lock order
//!
//! 1. The console's `front` ([`console`]).
//! 2. Inside it at most one of: one guest UART's state, the text ring, the log frames.
//!
//! A log statement holds its CPU's statement and inside it the log frames. EL2's
//! tables (`arch`), the pool ([`mem::pool`]), the heap and the VMIDs ([`vmid`]) stand
//! alone: nothing else is locked inside them. The virtual GIC has no locks.
//!
//! # Dependencies
//!
//! `hyp` joins `platform` and `stage2`, which know neither each other nor what a VM
//! is. Pure modules use each other and the types of these two crates, nothing of the joining ones.
//! `arch` calls up at named places: [`boot`], the handlers of [`trap`], [`crash`].
//! Unsafe code is in [`arch`], [`mem`] and [`log`], as docs/unsafe.md lists.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod bundle;
mod commands;
pub mod console;
pub mod crash;
pub mod create;
pub mod errata;
pub mod exit;
pub mod guest;
pub mod irq;
pub mod lifecycle;
pub mod log;
pub mod machine;
pub mod mem;
pub mod mmio;
pub mod percpu;
pub mod run;
pub mod seed;
pub mod smp;
pub mod task;
pub mod terminal;
pub mod trap;
pub mod vcpu;
pub mod vcpu_set;
pub mod vgic;
pub mod vm;
pub mod vmid;
pub mod vpl011;
pub mod vpsci;
pub mod vtimer;
pub mod watchdog;
