//! Who can speak on the console and who can be spoken to.

use core::str;

use heapless::String;

/// VMs one machine can run.
pub const MAX_VMS: usize = 16;

/// Longest name of a VM that fits the console's tags; longer ones are cut.
pub const NAME_LENGTH: usize = 16;

/// Number of a VM, below [`MAX_VMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmIndex(u8);

impl VmIndex {
    /// VM number `index`, if there can be such a one.
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_VMS { Some(Self(index as u8)) } else { None }
    }

    /// The number, for a table of [`MAX_VMS`] entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Some of the VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmSet(u16);

impl VmSet {
    /// No VM.
    pub const EMPTY: Self = Self(0);

    /// Adds `vm`.
    pub const fn insert(&mut self, vm: VmIndex) {
        self.0 |= 1 << vm.0;
    }

    /// Whether `vm` is in the set.
    pub const fn contains(self, vm: VmIndex) -> bool {
        self.0 >> vm.0 & 1 != 0
    }

    /// Whether no VM is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of VMs in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The VMs in the set, ascending.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = VmIndex> {
        (0..MAX_VMS as u8).map(VmIndex).filter(move |&vm| self.contains(vm))
    }

    /// Everything in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Somebody whose text appears on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A guest's UART.
    Vm(VmIndex),
    /// The hypervisor's lines.
    Hypervisor,
    /// The hypervisor's prompt and the echo of what is typed there.
    Prompt,
}

/// Number of sources.
pub const SOURCES: usize = MAX_VMS + 2;

impl Source {
    /// Position in a table of [`SOURCES`] entries.
    pub const fn slot(self) -> usize {
        match self {
            Self::Vm(vm) => vm.index(),
            Self::Hypervisor => MAX_VMS,
            Self::Prompt => MAX_VMS + 1,
        }
    }

    const fn of_slot(slot: u32) -> Self {
        match VmIndex::new(slot as usize) {
            Some(vm) => Self::Vm(vm),
            None if slot as usize == MAX_VMS => Self::Hypervisor,
            None => Self::Prompt,
        }
    }
}

/// Some of the sources, one bit per slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceSet(u32);

impl SourceSet {
    /// Every source.
    pub const ALL: Self = Self((1 << SOURCES) - 1);

    /// The sources whose bits are set in `bits`.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Just `source`.
    pub const fn one(source: Source) -> Self {
        Self(1 << source.slot())
    }

    /// One bit per slot.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether no source is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `source` is in the set.
    pub const fn contains(self, source: Source) -> bool {
        self.0 & Self::one(source).0 != 0
    }

    /// This set without `source`.
    pub const fn without(self, source: Source) -> Self {
        Self(self.0 & !Self::one(source).0)
    }

    /// The first source after `last`'s slot, going round; `None` if the set
    /// is empty.
    pub const fn next_after(self, last: Source) -> Option<Source> {
        let later = self.0 & (u32::MAX << last.slot() << 1);
        let from = if later != 0 { later } else { self.0 };
        if from == 0 { None } else { Some(Source::of_slot(from.trailing_zeros())) }
    }
}

/// The names of the VMs that exist.
#[derive(Default)]
pub struct Names {
    names: [String<NAME_LENGTH>; MAX_VMS],
    known: VmSet,
}

impl Names {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self { names: [const { String::new() }; MAX_VMS], known: VmSet::EMPTY }
    }

    /// Calls `vm` by `name`, of which the first [`NAME_LENGTH`] bytes count.
    pub fn set(&mut self, vm: VmIndex, name: &str) {
        if let Some(slot) = self.names.get_mut(vm.index()) {
            slot.clear();
            for character in name.chars().filter(|character| !character.is_control()) {
                if slot.push(character).is_err() {
                    break;
                }
            }
            self.known.insert(vm);
        }
    }

    /// Name of `vm`, or nothing if it has none.
    pub fn get(&self, vm: VmIndex) -> &str {
        self.names.get(vm.index()).map_or("", |name| name.as_str())
    }

    /// The VMs that have a name.
    pub const fn known(&self) -> VmSet {
        self.known
    }

    /// The VM that a person means by `word`: its name, or else its number.
    pub fn find(&self, word: &str) -> Option<VmIndex> {
        let by_name = self.known.iter().find(|&vm| self.get(vm) == word);
        let by_number = || word.parse().ok().and_then(VmIndex::new).filter(|&vm| self.known.contains(vm));
        by_name.or_else(by_number)
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, Source, SourceSet, VmIndex};

    fn vm(index: usize) -> VmIndex {
        VmIndex::new(index).expect("a small number")
    }

    #[test]
    fn turns_go_round() {
        let set = SourceSet::from_bits(0b10_0000_0000_0000_1001);
        let mut last = Source::Prompt;
        let turns: Vec<_> = (0..4)
            .map(|_| {
                last = set.next_after(last).expect("not empty");
                last
            })
            .collect();
        assert_eq!(turns, [Source::Vm(vm(0)), Source::Vm(vm(3)), Source::Prompt, Source::Vm(vm(0))]);
        assert_eq!(SourceSet::default().next_after(last), None);
    }

    #[test]
    fn every_slot_names_its_source() {
        for slot in 0..super::SOURCES {
            assert_eq!(Source::of_slot(slot as u32).slot(), slot);
        }
    }

    #[test]
    fn a_vm_is_found_by_name_before_number() {
        let mut names = Names::new();
        names.set(vm(0), "debian");
        names.set(vm(1), "0");
        assert_eq!(names.find("debian"), Some(vm(0)));
        assert_eq!(names.find("0"), Some(vm(1)));
        assert_eq!(names.find("1"), Some(vm(1)));
        assert_eq!(names.find("2"), None);
        assert_eq!(names.find("99999999999999999999"), None);
    }

    #[test]
    fn names_are_cut_at_a_character_and_cleaned() {
        let mut names = Names::new();
        names.set(vm(0), "\x1b[31m-abcdefghi\u{e9}\u{e9}\u{e9}");
        assert_eq!(names.get(vm(0)), "[31m-abcdefghi\u{e9}");
    }
}
