//! Mapping memory.
//!
//! [`Space::map`] goes along the range from one end to the other and puts the
//! largest leaf that fits into each empty entry it comes to, linking tables
//! where the entry is too large. It waits for nothing but an entry that
//! another CPU is changing.
//!
//! A table that is linked for a part of the range brings the leaves for it
//! along, if they are of its own size. Nobody else sees the table before, so
//! its entries are simply written, and all of them appear at once; one by one,
//! each would take an exchange.

use core::ops::Range;

use crate::addr::{Ipa, IpaRange, Level, PhysAddr};
use crate::attr::Attributes;
use crate::bbm::{Entry, Raced};
use crate::contiguous::Set;
use crate::cursor::{Account, Budget, Cursor, Step};
use crate::epoch::Guard;
use crate::error::MapError;
use crate::maint::Maintenance;
use crate::pte::{Leaf, Pte};
use crate::space::Space;
use crate::table::TableMemory;
use crate::vtcr::Contiguous;
use crate::walk::Walk;

impl<M: TableMemory> Space<M> {
    /// Maps `range` to the memory from `output` on.
    ///
    /// Uses the largest blocks that both addresses' alignment and the size of
    /// the range allow. The access flag is set. Caches are the caller's
    /// business: without [`Fwb::On`](crate::Fwb::On), the memory must have been
    /// cleaned to the point of coherency before a guest may see it.
    ///
    /// # Errors
    ///
    /// Refuses to map what is mapped already, if only in part, and undoes what
    /// it did until then; see [`MapError`] for the rest.
    pub fn map(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        output: PhysAddr,
        attributes: Attributes,
        maintenance: &impl Maintenance,
    ) -> Result<(), MapError> {
        self.check_mapping(range, output, attributes)?;
        let mut unlimited = Budget::UNLIMITED.open(self.geometry().granule());
        let (mapped_to, result) = self.fill(guard, range, output, attributes, &mut unlimited, maintenance);
        maintenance.publish();
        if result.is_err() {
            if let Some(mapped) = IpaRange::between(range.start(), mapped_to) {
                self.unmap(guard, mapped, maintenance)?;
            }
            self.prune(guard, mapped_to, maintenance);
        }
        result
    }

    /// A step of [`Self::map`]. `output` belongs to the first address of the
    /// cursor's whole range, in every step.
    ///
    /// # Errors
    ///
    /// As [`Self::map`]; but what was mapped until then, [`Cursor::done`],
    /// stays so.
    pub fn map_step(
        &self,
        guard: &Guard<'_>,
        cursor: &mut Cursor,
        output: PhysAddr,
        attributes: Attributes,
        budget: Budget,
        maintenance: &impl Maintenance,
    ) -> Result<Step, MapError> {
        self.check_mapping(cursor.range(), output, attributes)?;
        let Some(rest) = cursor.rest() else { return Ok(Step::Done) };
        let done = cursor.done().map_or(0, IpaRange::size);
        let mut account = budget.open(self.geometry().granule());
        let (at, result) = self.fill(guard, rest, output.plus(done), attributes, &mut account, maintenance);
        maintenance.publish();
        let step = cursor.reached(at);
        result.map(|()| step)
    }

    fn check_mapping(
        &self,
        range: IpaRange,
        output: PhysAddr,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        self.check_range(range)?;
        self.check_output(output, range.size())?;
        self.check_permissions(attributes.permissions)
    }

    /// Puts leaves into the empty entries of `range`. Also says how far it
    /// came: everything below that address was mapped by this call.
    fn fill(
        &self,
        guard: &Guard<'_>,
        range: IpaRange,
        mut output: PhysAddr,
        attributes: Attributes,
        account: &mut Account,
        maintenance: &impl Maintenance,
    ) -> (Ipa, Result<(), MapError>) {
        let mut walk = Walk::new(self, guard, range);
        while let Some(entry) = walk.entry_within(account) {
            let at = walk.at();
            match entry.pte() {
                Pte::Empty if self.fits(entry.range(), entry.level(), at, output, range.end()) => {
                    let span = entry.range().size();
                    let leaf = Leaf::new(entry.level(), output, attributes, self.format());
                    if let Ok(mapped) = self.put(entry, leaf, range.end(), maintenance) {
                        account.spend((mapped.size() / span) as usize - 1);
                        walk.pass_to(mapped.end());
                        // The end of memory may be the end of all addresses.
                        output = output.checked_add(mapped.size()).unwrap_or(output);
                    }
                }
                Pte::Empty => {
                    let end = entry.range().end().min(range.end());
                    let (level, brought) = self.leaves_below(entry.level(), at, end, output);
                    if !account.allows(brought.len()) {
                        return (at, Ok(()));
                    }
                    account.spend(brought.len());
                    let Some(table) = self.tables.allocate(guard) else {
                        return (at, Err(MapError::OutOfTables));
                    };
                    let (format, first) = (self.format(), brought.start);
                    table.fill_part(brought.clone(), |index| {
                        let offset = |index| (index - first) as u64 * format.granule().span(level);
                        let leaf = Leaf::new(level, output.plus(offset(index)), attributes, format);
                        let set = self.set_within(level, index, &brought);
                        let is_marked =
                            set.is_some_and(|(set, size)| output.plus(offset(set)).is_aligned(size));
                        if is_marked { leaf.with_contiguous() } else { leaf }.encode()
                    });
                    if let Ok(table) = entry.try_link(table) {
                        if brought.is_empty() {
                            walk.descend(table);
                        } else {
                            walk.pass();
                            output = output.checked_add(end.bits() - at.bits()).unwrap_or(output);
                        }
                    }
                }
                Pte::Leaf(_) => return (at, Err(MapError::AlreadyMapped { ipa: at })),
                Pte::Annotated(_) => return (at, Err(MapError::Annotated { ipa: at })),
                Pte::Table(_) | Pte::Settling(_) | Pte::Locked | Pte::Dead => {
                    unreachable!("a walk passes through these")
                }
            }
        }
        (walk.at(), Ok(()))
    }

    /// Stores a leaf in an empty entry, or a contiguous set from there on if
    /// one fits below `end` and all its entries are empty. Returns what was
    /// mapped.
    fn put(
        &self,
        entry: Entry<'_, M>,
        leaf: Leaf,
        end: Ipa,
        maintenance: &impl Maintenance,
    ) -> Result<IpaRange, Raced> {
        let range = entry.range();
        if self.features().contiguous == Contiguous::Allowed
            && let Some(set) = Set::of(entry.slot())
            && set.range().start() == range.start()
            && set.range().end() <= end
            && set.is_aligned(leaf.output())
            && set.try_make(leaf, maintenance).is_ok()
        {
            return Ok(set.range());
        }
        entry.try_update(leaf).map(|()| range)
    }

    /// The first entry and the bytes of the contiguous set at `level` that
    /// entry `index` is in, if the whole set is among `entries`.
    fn set_within(&self, level: Level, index: usize, entries: &Range<usize>) -> Option<(usize, u64)> {
        let granule = self.format().granule();
        let members = granule.contiguous_entries(level)?;
        let first = index & !(members - 1);
        let within = entries.start <= first && first + members <= entries.end;
        (self.features().contiguous == Contiguous::Allowed && within)
            .then(|| (first, members as u64 * granule.span(level)))
    }

    /// The level below `level`, and which entries of a table there map
    /// everything from `at` to `end`; none if not all of it can be mapped by
    /// leaves at that level.
    fn leaves_below(&self, level: Level, at: Ipa, end: Ipa, output: PhysAddr) -> (Level, Range<usize>) {
        let granule = self.format().granule();
        let level = level.next().expect("a page fits into an entry at the last level");
        let span = granule.span(level);
        let fits = at.is_aligned(span) && end.is_aligned(span) && output.is_aligned(span);
        if !fits || !self.format().allows_leaf(level) {
            return (level, 0..0);
        }
        let first = granule.index(at, level);
        (level, first..first + ((end.bits() - at.bits()) >> granule.shift(level)) as usize)
    }

    /// Whether a leaf in an entry for `entry`, at `level`, can map `at` to
    /// `output` without reaching beyond `end`.
    fn fits(&self, entry: IpaRange, level: Level, at: Ipa, output: PhysAddr, end: Ipa) -> bool {
        self.format().allows_leaf(level)
            && at == entry.start()
            && output.is_aligned(entry.size())
            && entry.end() <= end
    }
}
