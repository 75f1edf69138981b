//! What a space should say, kept in the simplest way there is: a sorted list
//! of stretches that are mapped, without levels, blocks or tables.

use std::ops::Range;

use stage2::{Annotated, Attributes, IpaRange, Mapping, Permissions, PhysAddr};

/// Addresses that are mapped to consecutive memory with the same attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) ipas: Range<u64>,
    pub(crate) output: u64,
    pub(crate) attributes: Attributes,
}

impl Stretch {
    /// The part of the stretch within `ipas`, if any.
    fn clip(&self, ipas: Range<u64>) -> Option<Self> {
        let start = self.ipas.start.max(ipas.start);
        let end = self.ipas.end.min(ipas.end);
        let output = self.output + start.saturating_sub(self.ipas.start);
        (start < end).then_some(Self { ipas: start..end, output, attributes: self.attributes })
    }

    fn continues(&self, before: &Self) -> bool {
        self.ipas.start == before.ipas.end
            && self.attributes == before.attributes
            && self.output == before.output + (before.ipas.end - before.ipas.start)
    }
}

impl From<Mapping> for Stretch {
    fn from(mapping: Mapping) -> Self {
        let ipas = mapping.range.start().bits()..mapping.range.end().bits();
        Self { ipas, output: mapping.output.bits(), attributes: mapping.attributes }
    }
}

/// The same stretches, sorted, with neighbours joined that continue each
/// other. Two lists mean the same if and only if they are equal in this form.
pub(crate) fn normal_form(stretches: impl IntoIterator<Item = Stretch>) -> Vec<Stretch> {
    let mut sorted: Vec<_> = stretches.into_iter().collect();
    sorted.sort_by_key(|stretch| stretch.ipas.start);
    let mut joined: Vec<Stretch> = Vec::new();
    for stretch in sorted {
        match joined.last_mut() {
            Some(last) if stretch.continues(last) => last.ipas.end = stretch.ipas.end,
            _ => joined.push(stretch),
        }
    }
    joined
}

/// Addresses that carry the same annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) ipas: Range<u64>,
    pub(crate) value: u64,
}

impl From<Annotated> for Note {
    fn from(annotated: Annotated) -> Self {
        let ipas = annotated.range.start().bits()..annotated.range.end().bits();
        Self { ipas, value: annotated.annotation.value() }
    }
}

/// The same as [`normal_form`] for annotations.
pub(crate) fn normal_notes(notes: impl IntoIterator<Item = Note>) -> Vec<Note> {
    let mut sorted: Vec<_> = notes.into_iter().collect();
    sorted.sort_by_key(|note| note.ipas.start);
    let mut joined: Vec<Note> = Vec::new();
    for note in sorted {
        match joined.last_mut() {
            Some(last) if last.ipas.end == note.ipas.start && last.value == note.value => {
                last.ipas.end = note.ipas.end;
            }
            _ => joined.push(note),
        }
    }
    joined
}

/// What a space should say.
#[derive(Clone, Default)]
pub(crate) struct Oracle(Vec<Stretch>, Vec<Note>);

impl Oracle {
    /// Everything that is mapped.
    pub(crate) fn stretches(&self) -> Vec<Stretch> {
        normal_form(self.0.iter().cloned())
    }

    /// Everything that is annotated.
    pub(crate) fn notes(&self) -> Vec<Note> {
        normal_notes(self.1.iter().cloned())
    }

    /// The first address of `range` that is annotated.
    pub(crate) fn first_annotated(&self, range: IpaRange) -> Option<u64> {
        let (start, end) = (range.start().bits(), range.end().bits());
        let inside = self.1.iter().filter(|note| note.ipas.start < end && start < note.ipas.end);
        inside.map(|note| note.ipas.start.max(start)).min()
    }

    pub(crate) fn annotate(&mut self, range: IpaRange, value: u64) {
        self.unmap(range);
        self.1.push(Note { ipas: range.start().bits()..range.end().bits(), value });
    }

    pub(crate) fn clear_annotations(&mut self, range: IpaRange) {
        let (start, end) = (range.start().bits(), range.end().bits());
        let parts = self.1.iter().flat_map(|note| {
            let below = note.ipas.start..note.ipas.end.min(start);
            let above = note.ipas.start.max(end)..note.ipas.end;
            [below, above].map(|ipas| Note { ipas, value: note.value })
        });
        self.1 = parts.filter(|note| !note.ipas.is_empty()).collect();
    }

    /// The first address of `range` that is mapped.
    pub(crate) fn first_mapped(&self, range: IpaRange) -> Option<u64> {
        let ipas = range.start().bits()..range.end().bits();
        self.0.iter().filter_map(|stretch| stretch.clip(ipas.clone())).map(|found| found.ipas.start).min()
    }

    pub(crate) fn map(&mut self, range: IpaRange, output: PhysAddr, attributes: Attributes) {
        let ipas = range.start().bits()..range.end().bits();
        self.0.push(Stretch { ipas, output: output.bits(), attributes });
    }

    pub(crate) fn unmap(&mut self, range: IpaRange) {
        self.0 = self.outside(range);
        self.clear_annotations(range);
    }

    pub(crate) fn protect(&mut self, range: IpaRange, permissions: Permissions) {
        let ipas = range.start().bits()..range.end().bits();
        let inside = self.0.iter().filter_map(|stretch| stretch.clip(ipas.clone()));
        let changed: Vec<_> = inside
            .map(|stretch| Stretch {
                attributes: Attributes { permissions, ..stretch.attributes },
                ..stretch
            })
            .collect();
        self.0 = self.outside(range);
        self.0.extend(changed);
    }

    fn outside(&self, range: IpaRange) -> Vec<Stretch> {
        let below = 0..range.start().bits();
        let above = range.end().bits()..u64::MAX;
        let parts =
            self.0.iter().flat_map(|stretch| [stretch.clip(below.clone()), stretch.clip(above.clone())]);
        parts.flatten().collect()
    }
}
