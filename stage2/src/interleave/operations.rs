//! Models of operations that meet in one space.
//!
//! The space has two levels of tables with two entries each, four pages in
//! all; or three levels and eight pages. While a model runs, its
//! [`Watch`] fails it if a descriptor is made or a table freed too early. At
//! the end no entry may be left LOCKED or DEAD, everything that was retired
//! can be freed, and what is mapped must be what some order of the operations
//! would have led to.

use std::convert::Infallible;
use std::sync::Arc;
use std::vec::Vec;

use loom::thread;

use super::memory::{Memory, Watch};
use super::model;
use crate::addr::{Ipa, IpaRange, Level, PhysAddr};
use crate::age::{Age, Aged, Aging, Tlb};
use crate::attr::{Attributes, Permissions};
use crate::cursor::{Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::fault::{Installed, Resolved};
use crate::format::Format;
use crate::geometry::{Geometry, Granule, PaSize};
use crate::space::Space;
use crate::table::TableMemory;
use crate::vtcr::Features;

const PAGE: u64 = Granule::Tiny.page_size();

/// A space of the models, and who watches over it.
struct World {
    space: Space<Memory>,
    watch: Arc<Watch>,
}

/// What the operations led to.
#[derive(Debug)]
struct Outcome {
    /// The pages that are mapped.
    mapped: Vec<u64>,
    /// How many tables the tree has, the root included.
    tables: usize,
}

impl Outcome {
    fn is(&self, mapped: &[u64], tables: usize) -> bool {
        self.mapped == mapped && self.tables == tables
    }
}

/// What one CPU does.
type Program = fn(&World, &Guard<'_>);

impl World {
    /// An empty space whose root is at `start_level`.
    fn new(start_level: Level) -> Self {
        let ipa_bits = match start_level {
            Level::L2 => 14,
            _ => 15,
        };
        let geometry = Geometry::with_start_level(Granule::Tiny, ipa_bits, PaSize::Bits32, start_level)
            .expect("a tiny one");
        let watch = Watch::new(Format::new(&geometry, Features::BASE));
        let space = Space::new(geometry, Features::BASE, Memory::new(&watch)).expect("there is a frame");
        Self { space, watch }
    }

    /// The same, where these pages are mapped already.
    fn with_pages(self, pages: &[u64]) -> Self {
        let cpu = self.space.memory().epochs().register().expect("few CPUs");
        for &page in pages {
            self.map(&cpu.pin(), page, 1).expect("nothing is mapped there");
        }
        drop(cpu);
        self
    }

    /// The same, where the first two pages are mapped by a block.
    fn with_block(self) -> Self {
        self.alone(|world, guard| world.map(guard, 0, 2).expect("nothing is mapped there"));
        self
    }

    /// Runs a program while nobody else does anything.
    fn alone(&self, program: Program) {
        let cpu = self.space.memory().epochs().register().expect("few CPUs");
        program(self, &cpu.pin());
    }

    /// Runs these programs at once, each on a CPU of its own. Then says what
    /// they led to, after a look at what else is left.
    fn run<const CPUS: usize>(self, programs: [Program; CPUS]) -> Outcome {
        let world = Arc::new(self);
        let cpus = programs.map(|program| {
            let world = world.clone();
            thread::spawn(move || {
                let cpu = world.space.memory().epochs().register().expect("few CPUs");
                program(&world, &cpu.pin());
            })
        });
        for cpu in cpus {
            cpu.join().expect("a CPU");
        }
        let world = Arc::into_inner(world).expect("all CPUs are done");
        world.settle()
    }

    fn settle(self) -> Outcome {
        let Self { space, watch } = self;
        let cpu = space.memory().epochs().register().expect("few CPUs");
        let all = 0..1 << (space.geometry().ipa_bits() - 12);
        let mapped = all.filter(|&page| is_mapped(&space, &cpu.pin(), page)).collect();
        for _ in 0..5 {
            space.collect(&cpu.pin());
        }
        assert_eq!(space.retired(), 0);
        drop(cpu);
        let tables = watch.in_use();
        space.destroy(&&*watch);
        assert_eq!(watch.in_use(), 0, "tables are lost");
        Outcome { mapped, tables }
    }

    fn map(&self, guard: &Guard<'_>, page: u64, pages: u64) -> Result<(), MapError> {
        self.space.map(guard, range(page, pages), output(page), Attributes::RAM, &&*self.watch)
    }

    fn unmap(&self, guard: &Guard<'_>, page: u64, pages: u64) {
        self.space.unmap(guard, range(page, pages), &&*self.watch).expect("it is inside the space");
    }

    fn split(&self, guard: &Guard<'_>, page: u64, pages: u64) {
        let mut cursor = Cursor::new(range(page, pages));
        let result = self.space.split_step(guard, &mut cursor, Level::L3, Budget::UNLIMITED, &&*self.watch);
        assert_eq!(result, Ok(Step::Done));
    }

    /// Makes these pages old. Says which were found, and found young.
    fn age(&self, guard: &Guard<'_>, page: u64, pages: u64) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        let visit = |aged: Aged| {
            let first = aged.range.start().bits() / PAGE;
            let pages = first..first + aged.range.size() / PAGE;
            found.extend(pages.map(|page| (page, !matches!(aged.age, Age::Old(_)))));
        };
        let mut cursor = Cursor::new(range(page, pages));
        let aging = Aging::Clear(Tlb::None);
        let result = self.space.age_step(guard, &mut cursor, aging, Budget::UNLIMITED, &&*self.watch, visit);
        assert_eq!(result, Ok(Step::Done));
        found
    }

    /// A vCPU faults on a page where nothing is mapped.
    fn fault(&self, guard: &Guard<'_>, page: u64) -> Installed<Infallible> {
        let leaf = self.space.leaf(Level::L3, output(page), Attributes::RAM).expect("a page");
        let ipa = range(page, 1).start();
        let installed = self.space.install(guard, ipa, leaf, None, || Ok(()), &&*self.watch);
        installed.expect("there is a table")
    }

    fn is_young(&self, guard: &Guard<'_>, page: u64) -> bool {
        let mapping = self.space.lookup(guard, range(page, 1).start());
        mapping.expect("the page is mapped").young
    }

    fn protect(&self, guard: &Guard<'_>, page: u64, pages: u64) {
        let result = self.space.protect(guard, range(page, pages), Permissions::READ_ONLY, &&*self.watch);
        result.expect("it is inside the space");
    }
}

/// Every page has a place of its own in memory.
fn output(page: u64) -> PhysAddr {
    PhysAddr::new(0x8000_0000 + page * PAGE)
}

fn range(page: u64, pages: u64) -> IpaRange {
    IpaRange::new(Ipa::new(page * PAGE), pages * PAGE).expect("not empty")
}

/// Whether a page is mapped; if so, to its own place.
fn is_mapped(space: &Space<Memory>, guard: &Guard<'_>, page: u64) -> bool {
    let ipa = range(page, 1).start();
    space.lookup(guard, ipa).is_some_and(|mapping| {
        assert_eq!(mapping.translate(ipa), Some(output(page)));
        true
    })
}

#[test]
fn page_mapped_into_a_table_that_is_being_emptied_is_not_lost() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0]).run([
            |world, guard| {
                world.unmap(guard, 0, 1);
                world.watch.check_forgotten(range(0, 1));
            },
            |world, guard| world.map(guard, 1, 1).expect("nothing is mapped there"),
        ]);
        assert!(outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn page_mapped_into_a_table_that_is_being_killed_is_there_or_not() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0]).run([
            |world, guard| world.unmap(guard, 0, 2),
            |world, guard| world.map(guard, 1, 1).expect("nothing is mapped there"),
        ]);
        assert!(outcome.is(&[], 1) || outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn two_unmaps_remove_their_table_once() {
    model(2, || {
        let outcome = World::new(Level::L2)
            .with_pages(&[0, 1])
            .run([|world, guard| world.unmap(guard, 0, 1), |world, guard| world.unmap(guard, 1, 1)]);
        assert!(outcome.is(&[], 1), "{outcome:?}");
    });
}

#[test]
fn table_is_unmapped_by_two_at_once() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0, 1]).run([
            |world, guard| {
                world.unmap(guard, 0, 2);
                world.watch.check_forgotten(range(0, 2));
            },
            |world, guard| {
                world.unmap(guard, 0, 2);
                world.watch.check_forgotten(range(0, 2));
            },
        ]);
        assert!(outcome.is(&[], 1), "{outcome:?}");
    });
}

#[test]
fn unmap_of_a_table_and_of_a_page_in_it_meet() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0, 1]).run([
            |world, guard| {
                world.unmap(guard, 0, 2);
                world.watch.check_forgotten(range(0, 2));
            },
            |world, guard| {
                world.unmap(guard, 1, 1);
                world.watch.check_forgotten(range(1, 1));
            },
        ]);
        assert!(outcome.is(&[], 1), "{outcome:?}");
    });
}

#[test]
fn two_faults_map_their_page_once() {
    model(2, || {
        let outcome = World::new(Level::L2).run([
            |world, guard| {
                let _ = world.map(guard, 0, 1);
                assert!(is_mapped(&world.space, guard, 0));
            },
            |world, guard| {
                let _ = world.map(guard, 0, 1);
                assert!(is_mapped(&world.space, guard, 0));
            },
        ]);
        assert!(outcome.is(&[0], 2), "{outcome:?}");
    });
}

#[test]
fn block_and_page_of_it_are_mapped_at_once() {
    model(2, || {
        let outcome = World::new(Level::L2).run([
            |world, guard| {
                let _ = world.map(guard, 0, 2);
            },
            |world, guard| {
                let _ = world.map(guard, 1, 1);
            },
        ]);
        let both = outcome.mapped == [0, 1];
        assert!(both || outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn block_that_is_being_split_never_looks_absent() {
    model(2, || {
        let outcome = World::new(Level::L2).with_block().run([
            |world, guard| world.unmap(guard, 0, 1),
            |world, guard| assert!(is_mapped(&world.space, guard, 1)),
        ]);
        assert!(outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn block_is_split_by_two_at_once() {
    model(2, || {
        let outcome = World::new(Level::L2)
            .with_block()
            .run([|world, guard| world.unmap(guard, 0, 1), |world, guard| world.protect(guard, 1, 1)]);
        assert!(outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn protection_and_removal_of_a_page_meet() {
    model(2, || {
        let outcome = World::new(Level::L2)
            .with_pages(&[0, 1])
            .run([|world, guard| world.protect(guard, 0, 2), |world, guard| world.unmap(guard, 0, 1)]);
        assert!(outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn lookup_follows_a_table_that_leaves_and_one_that_comes() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0]).run([
            |world, guard| {
                world.unmap(guard, 0, 1);
                world.map(guard, 1, 1).expect("nothing is mapped there");
            },
            |world, guard| {
                is_mapped(&world.space, guard, 0);
                is_mapped(&world.space, guard, 1);
            },
        ]);
        assert!(outcome.is(&[1], 2), "{outcome:?}");
    });
}

#[test]
fn empty_tables_are_removed_up_to_one_that_is_in_use() {
    model(2, || {
        let outcome = World::new(Level::L1).with_pages(&[0]).run([
            |world, guard| world.unmap(guard, 0, 1),
            |world, guard| world.map(guard, 2, 1).expect("nothing is mapped there"),
        ]);
        assert!(outcome.is(&[2], 3), "{outcome:?}");
    });
}

#[test]
fn page_that_a_fault_installs_beside_a_removal_is_not_lost() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0]).run([
            |world, guard| world.unmap(guard, 0, 1),
            |world, guard| {
                let installed = world.fault(guard, 1);
                let done = matches!(installed, Installed::Done(_));
                assert!(done || installed == Installed::Retry, "{installed:?}");
                assert_eq!(is_mapped(&world.space, guard, 1), done);
            },
        ]);
        assert!(outcome.is(&[1], 2) || outcome.is(&[], 1), "{outcome:?}");
    });
}

#[test]
fn page_and_the_block_around_it_fault_at_once() {
    model(2, || {
        let outcome = World::new(Level::L2).run([
            |world, guard| {
                let leaf = world.space.leaf(Level::L2, output(0), Attributes::RAM).expect("a block");
                let ipa = range(0, 1).start();
                let _ = world.space.install(guard, ipa, leaf, None, || Ok::<(), ()>(()), &&*world.watch);
            },
            |world, guard| {
                let _ = world.fault(guard, 1);
            },
        ]);
        assert!(!outcome.mapped.is_empty(), "one of them came first");
    });
}

#[test]
fn ageing_beside_a_split_finds_each_page_once() {
    model(2, || {
        let outcome = World::new(Level::L2).with_block().run([
            |world, guard| world.split(guard, 0, 2),
            |world, guard| assert_eq!(world.age(guard, 0, 2), [(0, true), (1, true)]),
        ]);
        assert!(outcome.is(&[0, 1], 2), "{outcome:?}");
    });
}

#[test]
fn access_flag_that_is_set_beside_a_split_is_not_lost() {
    model(2, || {
        let world = World::new(Level::L2).with_block();
        world.alone(|world, guard| {
            let _ = world.age(guard, 0, 2);
        });
        let outcome = world.run([
            |world, guard| world.split(guard, 0, 2),
            |world, guard| {
                let resolved = world.space.make_young(guard, range(1, 1).start(), &&*world.watch);
                assert_eq!(resolved == Resolved::Done, world.is_young(guard, 1));
            },
        ]);
        assert!(outcome.is(&[0, 1], 2), "{outcome:?}");
    });
}

#[test]
fn access_flag_that_is_set_beside_a_collapse_is_not_lost() {
    model(2, || {
        let world = World::new(Level::L2).with_pages(&[0, 1]);
        world.alone(|world, guard| {
            let _ = world.age(guard, 0, 2);
        });
        let outcome = world.run([
            |world, guard| assert!(world.space.collapse(guard, range(0, 1).start(), &&*world.watch).is_ok()),
            |world, guard| {
                let resolved = world.space.make_young(guard, range(1, 1).start(), &&*world.watch);
                assert_eq!(resolved == Resolved::Done, world.is_young(guard, 1));
            },
        ]);
        assert!(outcome.is(&[0, 1], 1), "{outcome:?}");
    });
}

#[test]
fn table_that_is_being_collapsed_never_looks_absent() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0, 1]).run([
            |world, guard| assert!(world.space.collapse(guard, range(0, 1).start(), &&*world.watch).is_ok()),
            |world, guard| assert!(is_mapped(&world.space, guard, 1)),
        ]);
        assert!(outcome.is(&[0, 1], 1), "{outcome:?}");
    });
}

#[test]
fn page_is_unmapped_from_a_table_that_is_being_collapsed() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0, 1]).run([
            |world, guard| {
                let _ = world.space.collapse(guard, range(0, 1).start(), &&*world.watch);
            },
            |world, guard| {
                world.unmap(guard, 1, 1);
                world.watch.check_forgotten(range(1, 1));
            },
        ]);
        assert!(outcome.is(&[0], 2), "{outcome:?}");
    });
}

#[test]
fn table_is_collapsed_by_two_at_once() {
    const COLLAPSE: Program = |world, guard| {
        let _ = world.space.collapse(guard, range(0, 1).start(), &&*world.watch);
    };
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0, 1]).run([COLLAPSE; 2]);
        assert!(outcome.is(&[0, 1], 1), "{outcome:?}");
    });
}

#[test]
fn page_faults_into_a_table_that_is_being_collapsed() {
    model(2, || {
        let outcome = World::new(Level::L2).with_pages(&[0]).run([
            |world, guard| {
                let _ = world.space.collapse(guard, range(0, 1).start(), &&*world.watch);
            },
            |world, guard| {
                let installed = world.fault(guard, 1);
                assert!(matches!(installed, Installed::Done(_) | Installed::Retry), "{installed:?}");
                assert!(is_mapped(&world.space, guard, 0));
            },
        ]);
        let [with, without] = [[0, 1].as_slice(), &[0]];
        assert!(outcome.mapped == with || outcome.mapped == without, "{outcome:?}");
    });
}
