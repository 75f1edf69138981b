//! Who is compared: this project's crate, the same behind one lock, and
//! google/aarch64-paging.
//!
//! Nobody has a TLB to look after, so what is left is the work on tables.

use std::sync::{Mutex, PoisonError};
use std::thread;

use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, MemoryRegion, Stage2};
use stage2::epoch::Participant;
use stage2::{
    Attributes, Features, Geometry, Granule, Ipa, IpaRange, MapError, NoTlb, PaSize, PhysAddr, Space,
    TableMemory as _,
};

use crate::pool::{Pool, Shared};

/// Something that keeps stage 2 tables.
pub(crate) trait Side {
    /// Maps `size` bytes that are not mapped, with the largest leaves that fit.
    fn map(&mut self, ipa: u64, size: u64, output: u64);

    /// Unmaps.
    fn unmap(&mut self, ipa: u64, size: u64);

    /// What an address translates to.
    fn translate(&mut self, ipa: u64) -> Option<u64>;

    /// Gets rid of empty tables, if they don't leave by themselves.
    fn compact(&mut self) {}
}

/// The ways to do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// This project's crate.
    Ours,
    /// aarch64-paging with tables that a CPU is using: it checks that the
    /// change is allowed, and visits what it has to invalidate. This is what
    /// ours always does.
    RivalInUse,
    /// aarch64-paging with tables that no CPU is using.
    RivalIdle,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::RivalInUse, Self::RivalIdle];

    /// As the program's arguments spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "entresol",
            Self::RivalInUse => "aarch64-paging",
            Self::RivalIdle => "aarch64-paging-idle",
        }
    }

    /// Tables for a space that begins with one table at `level`.
    pub(crate) fn start<'p>(self, pool: &'p Pool, level: usize) -> Box<dyn Side + 'p> {
        match self {
            Self::Ours => Box::new(Own::new(pool, level)),
            Self::RivalInUse => Box::new(Rival::new(pool, level, Use::Active)),
            Self::RivalIdle => Box::new(Rival::new(pool, level, Use::Idle)),
        }
    }
}

/// A space whose root is one table at `level`, 0 or 1.
pub(crate) fn space(pool: &Pool, level: usize) -> Space<&Pool> {
    let bits = if level == 0 { 48 } else { 39 };
    let geometry = Geometry::new(Granule::Kib4, bits, PaSize::Bits48).expect("a geometry of the manual");
    Space::new(geometry, Features::BASE, pool).expect("the pool has room for a root")
}

/// This project's crate with a space of its own, used by one CPU.
struct Own<'p> {
    /// `None` when it is being dropped.
    space: Option<Space<&'p Pool>>,
    cpu: Participant<'p>,
}

impl<'p> Own<'p> {
    fn new(pool: &'p Pool, level: usize) -> Self {
        let cpu = pool.epochs().register().expect("room for a CPU");
        Self { space: Some(space(pool, level)), cpu }
    }

    fn as_cpu(&mut self) -> Cpu<'_> {
        Cpu { space: self.space.as_ref().expect("not dropped yet"), cpu: &self.cpu, lock: None }
    }
}

impl Side for Own<'_> {
    fn map(&mut self, ipa: u64, size: u64, output: u64) {
        self.as_cpu().map(ipa, size, output);
    }

    fn unmap(&mut self, ipa: u64, size: u64) {
        self.as_cpu().unmap(ipa, size);
    }

    fn translate(&mut self, ipa: u64) -> Option<u64> {
        self.as_cpu().translate(ipa)
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Some(space) = self.space.take() {
            space.destroy(&NoTlb);
        }
    }
}

/// One of several CPUs that use a space together.
pub(crate) struct Cpu<'s> {
    pub(crate) space: &'s Space<&'s Pool>,
    pub(crate) cpu: &'s Participant<'s>,
    /// The lock to hold around every operation, to see what it costs.
    pub(crate) lock: Option<&'s Mutex<()>>,
}

impl Side for Cpu<'_> {
    fn map(&mut self, ipa: u64, size: u64, output: u64) {
        let _held = self.lock.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        let output = PhysAddr::new(output);
        let map = || self.space.map(&self.cpu.pin(), range(ipa, size), output, Attributes::RAM, &NoTlb);
        let mut mapped = map();
        while mapped == Err(MapError::OutOfTables) {
            // The other CPU holds them back: its thread lost its turn in the
            // middle of something.
            thread::yield_now();
            mapped = map();
        }
        mapped.expect("it was not mapped");
    }

    fn unmap(&mut self, ipa: u64, size: u64) {
        let _held = self.lock.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.space.unmap(&self.cpu.pin(), range(ipa, size), &NoTlb).expect("the range is inside");
    }

    fn translate(&mut self, ipa: u64) -> Option<u64> {
        let ipa = Ipa::new(ipa);
        let mapping = self.space.lookup(&self.cpu.pin(), ipa)?;
        mapping.translate(ipa).map(PhysAddr::bits)
    }
}

fn range(ipa: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(ipa), size).expect("a range of the work's")
}

/// Whether aarch64-paging is told that a CPU uses the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Active,
    Idle,
}

/// aarch64-paging.
struct Rival<'p>(Mapping<Shared<'p>, Stage2>);

/// The attributes of [`Attributes::RAM`], by aarch64-paging's names.
const RAM: Stage2Attributes = Stage2Attributes::VALID
    .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
    .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
    .union(Stage2Attributes::S2AP_ACCESS_RW)
    .union(Stage2Attributes::SH_INNER)
    .union(Stage2Attributes::ACCESS_FLAG);

impl<'p> Rival<'p> {
    #[expect(unsafe_code, reason = "the interface of aarch64-paging")]
    fn new(pool: &'p Pool, level: usize, usage: Use) -> Self {
        let mapping = Mapping::new(Shared(pool), level, Stage2);
        if usage == Use::Active {
            // SAFETY: Anywhere but on the architecture this only counts users.
            unsafe { mapping.activate() };
        }
        Self(mapping)
    }

    fn set(&mut self, ipa: u64, size: u64, output: u64, attributes: Stage2Attributes) {
        let region = MemoryRegion::new(ipa as usize, (ipa + size) as usize);
        let output = PhysicalAddress(output as usize);
        self.0
            .map_range(&region, output, attributes, Constraints::empty())
            .expect("a change that is allowed");
    }
}

impl Side for Rival<'_> {
    fn map(&mut self, ipa: u64, size: u64, output: u64) {
        self.set(ipa, size, output, RAM);
    }

    fn unmap(&mut self, ipa: u64, size: u64) {
        self.set(ipa, size, 0, Stage2Attributes::empty());
    }

    fn translate(&mut self, ipa: u64) -> Option<u64> {
        let page = MemoryRegion::new(ipa as usize, ipa as usize + 1);
        let mut found = None;
        let visited = self.0.walk_range(&page, &mut |_, descriptor, level| {
            if descriptor.is_valid() {
                let span = 4096_u64 << (9 * (3 - level));
                found = Some(descriptor.output_address().0 as u64 + ipa % span);
            }
            Ok(())
        });
        visited.expect("the address is inside");
        found
    }

    fn compact(&mut self) {
        self.0.compact_subtables();
    }
}

impl Drop for Rival<'_> {
    #[expect(unsafe_code, reason = "the interface of aarch64-paging")]
    fn drop(&mut self) {
        if self.0.active() {
            // SAFETY: As for `activate`.
            unsafe { self.0.deactivate(0) };
        }
    }
}
