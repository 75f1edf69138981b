//! What is measured: the work that all contenders do.

use crate::side::Side;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where the work begins, in the guest's addresses.
const IPA: u64 = 4 * GIB;

/// Where its memory lies: as well aligned.
const OUTPUT: u64 = 64 * GIB;

/// An output that no block can map.
const MISALIGNED: u64 = OUTPUT + PAGE;

/// A piece of work.
pub(crate) struct Work {
    /// What it is called, in the table and as an argument.
    pub(crate) name: &'static str,
    /// What `run` does so often that a figure is for one of these.
    pub(crate) unit: &'static str,
    /// How many units a run has.
    pub(crate) units: u32,
    /// The level of the space's root, which is one table.
    pub(crate) root_level: usize,
    /// How many loads a run of ours may make, if that is a goal.
    pub(crate) loads_at_most: Option<f64>,
    /// What is there before.
    pub(crate) prepare: fn(&mut dyn Side),
    /// The work; it leaves all as it was.
    pub(crate) run: fn(&mut dyn Side),
}

/// Every piece of work.
pub(crate) const WORKS: &[Work] = &[
    Work {
        name: "page",
        unit: "map and unmap a 4 KiB page among others",
        units: 256,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| every_other(PAGE, 0, |at| side.map(IPA + at, PAGE, OUTPUT + at)),
        run: |side| {
            every_other(PAGE, 1, |at| side.map(IPA + at, PAGE, OUTPUT + at));
            every_other(PAGE, 1, |at| side.unmap(IPA + at, PAGE));
        },
    },
    Work {
        name: "lone-page",
        unit: "the same with all its tables, and drop them",
        units: 1,
        root_level: 1,
        loads_at_most: None,
        prepare: |_| {},
        run: |side| {
            side.map(IPA, PAGE, OUTPUT);
            side.unmap(IPA, PAGE);
            side.compact();
        },
    },
    Work {
        name: "page-range",
        unit: "map and unmap 2 MiB of pages, per page",
        units: 512,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| side.map(IPA + 2 * MIB, PAGE, OUTPUT),
        run: |side| {
            side.map(IPA, 2 * MIB, MISALIGNED);
            side.unmap(IPA, 2 * MIB);
        },
    },
    Work {
        name: "block-2m",
        unit: "map and unmap a 2 MiB block among others",
        units: 256,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| every_other(2 * MIB, 0, |at| side.map(IPA + at, 2 * MIB, OUTPUT + at)),
        run: |side| {
            every_other(2 * MIB, 1, |at| side.map(IPA + at, 2 * MIB, OUTPUT + at));
            every_other(2 * MIB, 1, |at| side.unmap(IPA + at, 2 * MIB));
        },
    },
    Work {
        name: "block-1g",
        unit: "map and unmap a 1 GiB block among others",
        units: 256,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| every_other(GIB, 0, |at| side.map(at, GIB, OUTPUT + at)),
        run: |side| {
            every_other(GIB, 1, |at| side.map(at, GIB, OUTPUT + at));
            every_other(GIB, 1, |at| side.unmap(at, GIB));
        },
    },
    Work {
        name: "lookup",
        unit: "look a page up",
        units: 512,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| side.map(IPA, 2 * MIB, MISALIGNED),
        run: |side| {
            for index in 0..512 {
                // A stride that visits each page once, none beside the last.
                let at = index * 167 % 512 * PAGE;
                assert_eq!(side.translate(IPA + at), Some(MISALIGNED + at));
            }
        },
    },
    Work {
        name: "empty-1t",
        unit: "unmap an empty TiB",
        units: 1,
        root_level: 0,
        loads_at_most: Some(400.0),
        prepare: |_| {},
        run: |side| side.unmap(0, 1 << 40),
    },
];

/// The pages of a region that goes, in [`REGIONS`].
const REGION: u64 = 16 * MIB;

/// Removing a region: when it is alone, and when it is one of many.
pub(crate) const REGIONS: [Work; 2] = [
    Work {
        name: "region-alone",
        unit: "map and unmap a region, per page",
        units: (REGION / PAGE) as u32,
        root_level: 1,
        loads_at_most: None,
        prepare: |_| {},
        run: |side| {
            side.map(IPA, REGION, MISALIGNED);
            side.unmap(IPA, REGION);
        },
    },
    Work {
        name: "region-of-many",
        unit: "one region of 64, per page",
        units: (REGION / PAGE) as u32,
        root_level: 1,
        loads_at_most: None,
        prepare: |side| {
            for region in 1..64 {
                side.map(IPA + region * REGION, REGION, MISALIGNED);
            }
        },
        run: |side| {
            side.map(IPA, REGION, MISALIGNED);
            side.unmap(IPA, REGION);
        },
    },
];

/// Work of two threads in one space.
pub(crate) struct Sharing {
    /// What a figure is for.
    pub(crate) unit: &'static str,
    /// How many units a run has.
    pub(crate) units: u32,
    /// What is there before.
    pub(crate) prepare: fn(&mut dyn Side),
    /// The work of the thread with this number; it leaves all as it was.
    pub(crate) run: fn(&mut dyn Side, u64),
}

/// Two threads, each with 2 MiB of its own.
pub(crate) const DISJOINT: [Sharing; 2] = [
    Sharing {
        unit: "page among others",
        units: 256,
        prepare: |side| {
            for thread in 0..2 {
                every_other(PAGE, 0, |at| side.map(IPA + thread * 2 * MIB + at, PAGE, OUTPUT + at));
            }
        },
        run: |side, thread| {
            let ipa = IPA + thread * 2 * MIB;
            every_other(PAGE, 1, |at| side.map(ipa + at, PAGE, OUTPUT + at));
            every_other(PAGE, 1, |at| side.unmap(ipa + at, PAGE));
        },
    },
    Sharing {
        unit: "2 MiB of pages, per page",
        units: 512,
        prepare: |side| side.map(IPA + 4 * MIB, PAGE, OUTPUT),
        run: |side, thread| {
            let ipa = IPA + thread * 2 * MIB;
            side.map(ipa, 2 * MIB, MISALIGNED);
            side.unmap(ipa, 2 * MIB);
        },
    },
];

/// Two threads in the same 2 MiB, each with every other of the pages that are
/// not always there.
pub(crate) const SHARED: Sharing = Sharing {
    unit: "page among others",
    units: 128,
    prepare: |side| every_other(PAGE, 0, |at| side.map(IPA + at, PAGE, OUTPUT + at)),
    run: |side, thread| {
        let mine = |at: u64| at / PAGE % 4 == 1 + 2 * thread;
        every_other(PAGE, 1, |at| {
            if mine(at) {
                side.map(IPA + at, PAGE, OUTPUT + at)
            }
        });
        every_other(PAGE, 1, |at| {
            if mine(at) {
                side.unmap(IPA + at, PAGE)
            }
        });
    },
};

/// The work with this name.
pub(crate) fn find(name: &str) -> Option<&'static Work> {
    WORKS.iter().chain(&REGIONS).find(|work| work.name == name)
}

/// Offsets of every other entry in what a table with entries of `span` bytes
/// translates, from the first or the second on.
fn every_other(span: u64, first: u64, mut visit: impl FnMut(u64)) {
    for index in (first..512).step_by(2) {
        visit(index * span);
    }
}

#[cfg(test)]
mod tests {
    use super::{REGIONS, WORKS};
    use crate::pool::Pool;
    use crate::side::Contender;

    #[test]
    fn work_leaves_all_as_it_was() {
        for work in WORKS.iter().chain(&REGIONS) {
            for contender in Contender::ALL {
                let pool = Pool::new(1024);
                let mut side = contender.start(&pool, work.root_level);
                (work.prepare)(&mut *side);
                (work.run)(&mut *side);
                (work.run)(&mut *side);
            }
        }
    }
}
