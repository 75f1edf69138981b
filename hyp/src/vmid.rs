//! VMIDs: which number a VM's translations carry in the TLBs.
//!
//! A TLB entry of a guest is tagged with the VMID that VTTBR_EL2 held when it was
//! made. There are 255 of them, or 65535 (FEAT_VMID16), and VMs come and go. So a
//! number is lent, and when they run out, all are called in at once: a *rollover*.
//! All TLBs forget all guests, and every VM gets a number again when it next needs
//! one. This is rare, and so everything else is made cheap.
//!
//! # The protocol
//!
//! What a VM has is an *id*: a generation, and below it the number
//! ([`Assignment`]). The number is good while the generation is the current one.
//! Each CPU has two slots:
//!
//! * *active*: the id with which it last entered a guest; `LEFT` since
//!   that guest left it; `CALLED_IN` from a rollover until it enters a guest.
//! * *reserved*: the id that was active at the last rollover. A guest may be
//!   running with it, so nobody else gets its number, and its VM keeps it.
//!
//! To enter ([`Vmids::enter`]), a CPU replaces what is active, if it is not
//! `CALLED_IN`, by the VM's id, if its generation is the current one. The
//! replacement is a compare-and-exchange and takes no lock: if a rollover
//! comes between, it fails. Otherwise the CPU takes the lock. Under
//! it, an id of an older generation that some CPU has reserved gets the new generation
//! and keeps its number, and *every* CPU that reserved it learns so: at the next
//! rollover it will be looked for by its new name. Any other VM gets the next
//! number that is not reserved. If there is none, the generation rolls over: each
//! CPU's active id is moved to its reserved slot (a slot that was `CALLED_IN` ever
//! since the last time keeps what it has reserved), and the TLBs of all CPUs
//! forget everything, before anybody gets a number of the new generation.
//!
//! A VM therefore has one number at a time, on all CPUs, even while some still run
//! it with an id from before a rollover.
//!
//! # Invalidating a VM that runs elsewhere
//!
//! A CPU that has changed a VM's tables invalidates what TLBs hold for its *current*
//! number, [`Assignment::current`]. Meanwhile the VM may be given another number:
//!
//! ```text
//!  CPU that changes the tables          CPU that enters the VM
//!  write the descriptor                 write the new id
//!  DSB ISH                              DSB ISH
//!  read the id                          enter; the walker reads the descriptor
//!  TLBI with that id's number
//! ```
//!
//! Without a full barrier on both sides each may read what was before: the TLBI hits
//! the old number, and the walk puts the old descriptor in a TLB under the new one.
//! The first barrier is the one that every invalidation begins with. The second is in
//! [`Vmids::enter`], and there on the path without the lock as well: the CPU that
//! enters need not be the one that wrote the id.
//!
//! If the number belongs to another VM by the time of the TLBI, that VM walks its
//! tables once more. Nothing else happens.
//!
//! # What callers keep
//!
//! * The VMID is decided first and loaded into VTTBR_EL2 afterwards, together with
//!   the root. Nothing of the guest runs between [`Vmids::enter`] and that, and
//!   nothing after [`Vmids::leave`].
//! * A guest that stays in the processor, entered again and again, needs no new
//!   [`Vmids::enter`], rollovers or not: its number is reserved until it leaves.
//! * Two vCPUs of one VM share its VMID, but not their stage-1 tables. A CPU that
//!   goes from one to the other forgets the VM's stage-1 entries first
//!   (`run.rs`, "last_run").
//! * A VM that is gone needs to give nothing back: its number is good for
//!   nobody until the next rollover.

use crate::percpu::MAX_CPUS;
use stage2::VmidSize;

mod sync;
use sync::{AtomicU64, Mutex, Ordering};

/// Below a generation: the number. 48 bits of generations never wrap.
const GENERATION_ONE: u64 = 1 << 16;

/// The number in an id.
const NUMBER: u64 = GENERATION_ONE - 1;

/// In an active slot: a rollover moved what was there.
const CALLED_IN: u64 = 0;

/// In an active slot: no guest is in the processor. An id of the first generation
/// with a number that nobody gets, so that it differs from `CALLED_IN`, and that
/// reserving it at a rollover reserves nothing.
const LEFT: u64 = GENERATION_ONE;

/// In an [`Assignment`]: never entered.
const NONE: u64 = 0;

/// What TLBs and walkers of all CPUs must do, as completed sequences.
pub trait Tlbs {
    /// Forgets everything about all guests on all CPUs, and returns when that is done
    /// (DSB ISHST; TLBI ALLE1IS; IC IALLUIS; DSB ISH; ISB).
    fn forget_all_guests(&self);

    /// Waits until what this CPU wrote is visible to all, before anything that comes
    /// after is read, by walkers too (DSB ISH).
    fn complete_writes(&self);
}

/// A VMID, never 0: as a field of VTTBR_EL2 a 0 would look like no guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vmid(u16);

impl Vmid {
    fn of_id(id: u64) -> Self {
        Self((id & NUMBER) as u16)
    }

    /// The field of VTTBR_EL2, in place.
    pub const fn vttbr_bits(self) -> u64 {
        (self.0 as u64) << 48
    }
}

/// Which VMID a VM has. Each VM has one of these.
#[derive(Debug)]
pub struct Assignment {
    /// Generation and number, or [`NONE`].
    id: AtomicU64,
}

impl Assignment {
    /// That of a VM that has not run.
    pub fn none() -> Self {
        Self { id: AtomicU64::new(NONE) }
    }

    /// The VMID with which TLBs may hold translations of this VM. Asked after a
    /// DSB that follows the change to its tables; see the head of this file.
    ///
    /// `None` if the VM never ran. What was changed before that DSB will be seen when
    /// it does.
    pub fn current(&self) -> Option<Vmid> {
        // Acquire: together with the barrier in `Vmids::enter` on other CPUs.
        let id = self.id.load(Ordering::Acquire);
        (id != NONE).then(|| Vmid::of_id(id))
    }
}

impl Default for Assignment {
    fn default() -> Self {
        Self::none()
    }
}

/// The numbers of one machine, for up to `CPUS` CPUs.
pub struct Vmids<const CPUS: usize = MAX_CPUS> {
    /// The current generation, in place; from one on. Changes under the lock.
    generation: AtomicU64,
    active: [AtomicU64; CPUS],
    pool: Mutex<Pool<CPUS>>,
    /// The largest number.
    last: u64,
}

/// What is looked at and changed only when numbers are given out.
struct Pool<const CPUS: usize> {
    /// The number to try next.
    next: u64,
    reserved: [u64; CPUS],
}

impl<const CPUS: usize> Vmids<CPUS> {
    /// All numbers of this size, none of them given out.
    pub fn new(size: VmidSize) -> Self {
        Self::with_last(match size {
            VmidSize::Bits8 => 0xff,
            VmidSize::Bits16 => 0xffff,
        })
    }

    fn with_last(last: u64) -> Self {
        // Each CPU may reserve one, and the one that asks must still get one.
        assert!(last > CPUS as u64 && last <= NUMBER, "too few VMIDs for these CPUs");
        Self {
            generation: AtomicU64::new(GENERATION_ONE),
            active: core::array::from_fn(|_| AtomicU64::new(LEFT)),
            pool: Mutex::new(Pool { next: 1, reserved: [LEFT; CPUS] }),
            last,
        }
    }

    /// The VMID for the VM whose vCPU is about to enter the processor on this CPU,
    /// which is number `cpu` and has no other guest in the processor.
    ///
    /// # Panics
    ///
    /// If there is no such CPU.
    pub fn enter(&self, cpu: usize, assignment: &Assignment, tlbs: &impl Tlbs) -> Vmid {
        let id = match self.try_enter(cpu, assignment) {
            Some(id) => id,
            None => self.enter_with_lock(cpu, assignment, tlbs),
        };
        // The id is visible to whoever invalidates, before this CPU walks a table.
        tlbs.complete_writes();
        Vmid::of_id(id)
    }

    /// The guest that this CPU entered last is out of the processor.
    ///
    /// # Panics
    ///
    /// If there is no such CPU.
    pub fn leave(&self, cpu: usize) {
        let slot = self.slot(cpu);
        let id = slot.load(Ordering::Relaxed);
        // Not a plain store: over CALLED_IN it would hide a rollover from this CPU,
        // which could then enter with an old id, as `try_enter` may still read the
        // old generation. If a rollover comes first, the slot stays CALLED_IN, and the
        // id stays reserved for nothing until this CPU enters another guest.
        if id != CALLED_IN {
            let _ = slot.compare_exchange(id, LEFT, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn slot(&self, cpu: usize) -> &AtomicU64 {
        self.active.get(cpu).expect("CPUs are numbered from 0 without gaps")
    }

    /// The path without the lock; `None` if a rollover came since the VM or this
    /// CPU last got a number.
    fn try_enter(&self, cpu: usize, assignment: &Assignment) -> Option<u64> {
        let slot = self.slot(cpu);
        let before = slot.load(Ordering::Relaxed);
        // Acquire: whoever gave out this id had all TLBs forget the number first.
        let id = assignment.id.load(Ordering::Acquire);
        // Relaxed: with an old generation read here, either the exchange comes before
        // the rollover's, and the id is reserved; or after, and fails.
        if before == CALLED_IN || !is_of(id, self.generation.load(Ordering::Relaxed)) {
            return None;
        }
        slot.compare_exchange(before, id, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(id)
    }

    fn enter_with_lock(&self, cpu: usize, assignment: &Assignment, tlbs: &impl Tlbs) -> u64 {
        let mut pool = self.pool.lock();
        // Relaxed, all of them: what they read was written under the lock.
        let mut id = assignment.id.load(Ordering::Relaxed);
        if !is_of(id, self.generation.load(Ordering::Relaxed)) {
            id = self.give_out(&mut pool, id, tlbs);
            // Release: pairs with the load in `try_enter`.
            assignment.id.store(id, Ordering::Release);
        }
        // Relaxed: it is this CPU's slot, and a rollover needs the lock.
        self.slot(cpu).store(id, Ordering::Relaxed);
        id
    }

    /// An id of the current generation for the VM that had `old`.
    fn give_out(&self, pool: &mut Pool<CPUS>, old: u64, tlbs: &impl Tlbs) -> u64 {
        let generation = self.generation.load(Ordering::Relaxed);
        let kept = generation | (old & NUMBER);
        if pool.rename(old, kept) {
            return kept;
        }
        if let Some(number) = pool.take_number(self.last) {
            return generation | number;
        }
        let generation = self.roll_over(pool, generation + GENERATION_ONE, tlbs);
        // There are more numbers than CPUs that could reserve one.
        let number = pool.take_number(self.last).expect("more VMIDs than CPUs");
        generation | number
    }

    /// Begins this generation.
    fn roll_over(&self, pool: &mut Pool<CPUS>, generation: u64, tlbs: &impl Tlbs) -> u64 {
        self.generation.store(generation, Ordering::Relaxed);
        for (active, reserved) in self.active.iter().zip(&mut pool.reserved) {
            match active.swap(CALLED_IN, Ordering::Relaxed) {
                // It has not entered a guest since the last rollover: what was
                // reserved then may still be running.
                CALLED_IN => {}
                id => *reserved = id,
            }
        }
        pool.next = 1;
        tlbs.forget_all_guests();
        generation
    }
}

impl<const CPUS: usize> Pool<CPUS> {
    /// Gives `old` its new name wherever it is reserved. Whether it is.
    fn rename(&mut self, old: u64, new: u64) -> bool {
        let mut found = false;
        for reserved in self.reserved.iter_mut().filter(|reserved| **reserved == old) {
            *reserved = new;
            found = true;
        }
        found
    }

    /// The next number that is not reserved, if any is left of this generation.
    fn take_number(&mut self, last: u64) -> Option<u64> {
        while self.next <= last {
            let number = self.next;
            self.next += 1;
            if self.reserved.iter().all(|reserved| reserved & NUMBER != number) {
                return Some(number);
            }
        }
        None
    }
}

/// Whether `id` was given out in this generation.
fn is_of(id: u64, generation: u64) -> bool {
    id & !NUMBER == generation
}

#[cfg(all(test, hyp_loom))]
mod interleave;
#[cfg(test)]
mod ledger;
#[cfg(all(test, not(hyp_loom)))]
mod tests;
