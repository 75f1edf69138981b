//! Stage-2 translation tables: built, changed and read while guests run on
//! them.
//!
//! # What stage 2 is
//!
//! A guest has page tables of its own. They translate its virtual addresses
//! into what it believes to be physical ones. Under a hypervisor those are
//! only *intermediate* physical addresses ([`Ipa`]), and the hardware
//! translates each of them once more, through tables that the guest never
//! sees, into physical ones ([`PhysAddr`]). That is stage 2. It decides where
//! a guest's memory really is, and what is not in it does not exist for the
//! guest: the isolation between guests is these tables and nothing else.
//!
//! # The tree
//!
//! A table is a page full of 64-bit *descriptors*, 512 of them with the 4 KiB
//! granule. A walk takes nine bits of the address at each level to pick one:
//!
//! ```text
//!  IPA   47      39 38      30 29      21 20      12 11          0
//!       ┌──────────┬──────────┬──────────┬──────────┬─────────────┐
//!       │ level 0  │ level 1  │ level 2  │ level 3  │   offset    │
//!       └────┬─────┴────┬─────┴────┬─────┴────┬─────┴─────────────┘
//!  entry: 512 GiB     1 GiB      2 MiB      4 KiB
//!         table       table      table      page
//!                     or block   or block
//! ```
//!
//! A descriptor is invalid, or leads to a table at the next level, or is a
//! *leaf*: a page, or at levels 1 and 2 a block, which maps all that the entry
//! covers and saves the walk below it. Leaves also hold the [`Attributes`]:
//! what the guest may do there, and how the memory behaves.
//!
//! Spaces narrower than 48 bits start lower down, and up to 16 tables may be
//! laid side by side as the root to save one more level ([`geometry`]). The
//! hardware learns the shape from VTCR_EL2 ([`Space::vtcr`]) and the place
//! from VTTBR_EL2 ([`Space::root`]).
//!
//! # A first space
//!
//! The crate needs two things from its surroundings: memory for tables
//! ([`TableMemory`]) and the barriers and TLB invalidations of the CPU
//! ([`Maintenance`]). Here the first is an [`arena`](arena::Arena), which
//! works anywhere, and the second does nothing ([`NoTlb`]), as there is no CPU
//! whose TLB could remember anything. And everybody who looks into tables
//! shows a [`Guard`](epoch::Guard): it says that this CPU may be looking, so
//! that no table is put to another use meanwhile.
//!
//! ```
//! use stage2::arena::{Arena, frame};
//! use stage2::epoch::Epochs;
//! use stage2::{Attributes, Features, Geometry, Granule, Ipa, IpaRange, MapError, NoTlb, PaSize};
//! use stage2::{Permissions, PhysAddr, Space};
//!
//! let epochs = Epochs::new();
//! let cpu = epochs.register().expect("room for a CPU");
//! let frames: Vec<_> = std::iter::repeat_with(frame).take(16).collect();
//! let memory = Arena::new(PhysAddr::new(0x1000_0000), frames, &epochs);
//!
//! // 40 bits need two level 1 tables side by side.
//! let geometry = Geometry::new(Granule::Kib4, 40, PaSize::Bits40)?;
//! let space = Space::new(geometry, Features::BASE, &memory)?;
//! assert_eq!(space.vtcr(), 0x8002_3558);
//! assert_eq!(memory.in_use(), 2);
//!
//! // A gigabyte and a bit of RAM: the largest blocks that fit are used.
//! const GIB: u64 = 1 << 30;
//! const MIB: u64 = 1 << 20;
//! let guard = cpu.pin();
//! let ram = IpaRange::new(Ipa::new(GIB), GIB + 2 * MIB).expect("not empty");
//! space.map(&guard, ram, PhysAddr::new(3 * GIB), Attributes::RAM, &NoTlb)?;
//! let sizes: Vec<u64> = space.leaves(&guard, ram).map(|leaf| leaf.range.size()).collect();
//! assert_eq!(sizes, [GIB, 2 * MIB]);
//!
//! // What does an address translate to?
//! let ipa = Ipa::new(GIB + 0x1234);
//! let leaf = space.lookup(&guard, ipa).expect("it was just mapped");
//! assert_eq!(leaf.translate(ipa), Some(PhysAddr::new(3 * GIB + 0x1234)));
//!
//! // Nothing is replaced silently.
//! let page = IpaRange::new(Ipa::new(GIB + 0x1000), 0x1000).expect("not empty");
//! let refused = space.map(&guard, page, PhysAddr::new(0), Attributes::RAM, &NoTlb);
//! assert_eq!(refused, Err(MapError::AlreadyMapped { ipa: page.start() }));
//!
//! // A hole in the middle of a block splits it; the rest stays mapped.
//! space.unmap(&guard, page, &NoTlb)?;
//! assert_eq!(space.lookup(&guard, ipa), None);
//! let below = space.lookup(&guard, Ipa::new(GIB)).expect("only one page went");
//! assert_eq!(below.range.size(), 0x1000);
//!
//! // So does a change of permissions of a part.
//! let first = IpaRange::new(ram.start(), 0x1000).expect("not empty");
//! space.protect(&guard, first, Permissions::READ_ONLY, &NoTlb)?;
//!
//! // Tables that were emptied are freed when nobody can be looking at them.
//! space.unmap(&guard, ram, &NoTlb)?;
//! drop(guard);
//! while space.retired() > 0 {
//!     space.collect(&cpu.pin());
//! }
//! assert_eq!(memory.in_use(), 2);
//!
//! space.destroy(&NoTlb);
//! assert_eq!(memory.in_use(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Changing a tree that is in use
//!
//! CPUs keep what they have read in TLBs and walk caches, for as long as they
//! like, and read ahead whenever they like. Only valid descriptors are cached.
//! So:
//!
//! * **From nothing to something** needs no invalidation, only that the walkers
//!   get to see it ([`Maintenance::publish`]). A new table is filled before it
//!   is linked.
//! * **From something to nothing** needs an invalidation before anyone may rely
//!   on it: before the memory, or the table, is used for something else.
//! * **From something to something else** is the hard one. For a while one
//!   CPU's TLB could hold the old descriptor and another's, or even the same
//!   one's, the new. Where they differ in address, memory type or size, the
//!   architecture gives up all guarantees. So the entry is *broken* first
//!   (made invalid, and invalidated everywhere) and then *made*. The steps are
//!   types that can't be put in the wrong order: see [`bbm`].
//! * **Permissions and flags** may change in place, with an invalidation to
//!   make it effective.
//!
//! An invalidation is the dearest of all these steps: every CPU takes part.
//! [`Space::unmap`] therefore needs a number of them that depends on the depth
//! of the tree and not on the number of pages.
//!
//! # Many CPUs at once
//!
//! Every operation takes `&self`. There is no lock around a space: the entry
//! is the lock. Besides the hardware's states, a descriptor may be in states
//! of our own, which the hardware takes for "invalid" ([`pte`]):
//!
//! * LOCKED: one CPU is between break and make.
//! * DEAD: the table is being removed; nothing can be installed any more.
//!
//! All writes are compare-and-exchange on what was read, because other CPUs
//! *and the hardware* (which sets access flags) write too. Who loses a race
//! reads again. Who meets LOCKED waits for the entry, which takes as long as
//! one invalidation; who meets DEAD starts again from the root. A CPU that
//! holds a lock allocates nothing, does nothing that could fail, and waits for
//! nobody, so waiting never goes in circles.
//!
//! Work on a large range is done in [steps](cursor), between which a CPU can
//! look after other things.
//!
//! What the crate does *not* arbitrate is intent. If one caller maps a page
//! while another unmaps it, both succeed in some order; who may do what with
//! which range is decided above.
//!
//! # The life of a table
//!
//! A table is allocated empty, filled while nobody can reach it, linked, and
//! in the end unlinked: killed entry by entry, invalidated, and put on a list
//! (`detach.rs`, `reclaim.rs`). Another CPU may still be on its way into it
//! then, so it is freed later, when every CPU has been without a guard in
//! between ([`epoch`]).
//!
//! # What is left to others
//!
//! * VMIDs and the registers: a [`Maintenance`] is made for one VMID.
//! * Data and instruction caches: memory is mapped as it is.
//! * Who owns which memory: the crate maps what it is told to.
//!
//! # Where to read on
//!
//! From the bits up: [`addr`], [`granule`], [`geometry`] and [`vtcr`],
//! [`attr`], [`format`](mod@format), [`pte`] and [`leaf`]; [`table`] and
//! [`maint`] are the two traits, and [`tlbi`] the second one's sequences;
//! [`bbm`] is the protocol for one entry, `detach.rs` the one for tables,
//! [`epoch`] and `reclaim.rs` the one for their memory, [`invalidate`] the one
//! with whoever owns the memory that is mapped; `walk.rs`, `map.rs`,
//! `protect.rs` and `unmap.rs` are the operations, written with all of these. The claims about them are in
//! `tests/suite`, where a model of the TLBs watches every store.
//!
//! "Arm ARM" stands for the *Arm Architecture Reference Manual for A-profile
//! architecture* (DDI 0487); sections are cited by title.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod age;
mod annotate;
pub mod arena;
pub mod attr;
pub mod bbm;
mod cold;
mod collapse;
mod contiguous;
pub mod cursor;
mod detach;
pub mod dirty;
pub mod epoch;
pub mod error;
pub mod fault;
mod flush;
pub mod format;
pub mod geometry;
pub mod granule;
#[cfg(all(test, stage2_loom))]
mod interleave;
pub mod invalidate;
pub mod leaf;
pub mod maint;
mod map;
mod migrate;
mod protect;
pub mod pte;
mod reclaim;
pub mod regions;
mod scan;
mod space;
mod sync;
pub mod table;
pub mod tlbi;
mod unmap;
mod view;
pub mod vtcr;
mod walk;

pub use addr::{Ipa, IpaRange, Level, PhysAddr};
pub use age::{Age, Aged, Aging, Generation, Tlb};
pub use annotate::{Annotated, Annotations};
pub use attr::{Access, Attributes, Dirty, Execute, Fwb, MemoryType, Permissions};
pub use cold::Cold;
pub use collapse::CollapseError;
pub use cursor::{Budget, Cursor, Step};
pub use dirty::Detail;
pub use error::MapError;
pub use fault::{InstallError, Installed, Resolved};
pub use format::{AddressFormat, Format};
pub use geometry::{Geometry, GeometryError, Granule, PaSize};
pub use maint::{Maintenance, NoTlb, Stale};
pub use migrate::{MigrateError, Vacated};
pub use pte::{Annotation, Descriptor, Leaf, Pte, Successor};
pub use space::{Space, Teardown};
pub use table::TableMemory;
pub use vtcr::{AccessFlag, Bbm, Contiguous, DirtyState, Features, VmidSize, Xnx};
pub use walk::{Leaves, Mapping};
