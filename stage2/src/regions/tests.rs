//! Regions on one thread: what is found, what is refused, and what a removal does
//! step by step.

use super::{AddError, Kind, Lookup, NEXT, Region, Regions, RemovalError, Slot};
use crate::addr::{ADDRESS_BITS, Ipa, IpaRange};
use crate::epoch::Epochs;
use crate::invalidate::{Buckets, Retry};
use crate::pte::Annotation;
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use std::vec::Vec;

const PAGE: u64 = 0x1000;

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn ram(start: u64, size: u64) -> Region {
    Region { range: range(start, size), kind: Kind::Ram(start + 7) }
}

fn device(start: u64, tag: u64) -> Region {
    Region { range: range(start, PAGE), kind: Kind::Mmio(Annotation::new(tag).unwrap()) }
}

/// Room for three, and two are there: RAM in pages 4 to 7 and a device in page 9.
fn regions() -> Regions<3> {
    let regions = Regions::new();
    regions.add(the_ram()).unwrap();
    regions.add(the_device()).unwrap();
    regions
}

fn the_ram() -> Region {
    ram(4 * PAGE, 4 * PAGE)
}

fn the_device() -> Region {
    device(9 * PAGE, 42)
}

fn buckets() -> Buckets<4> {
    Buckets::new()
}

fn look<const N: usize>(regions: &Regions<N>, page: u64) -> Lookup<'_> {
    regions.look(Ipa::new(page * PAGE)).unwrap()
}

fn found<const N: usize>(regions: &Regions<N>, page: u64) -> Option<Region> {
    look(regions, page).region()
}

fn must_wait<const N: usize>(regions: &Regions<N>, page: u64) -> bool {
    matches!(regions.look(Ipa::new(page * PAGE)), Err(Retry::After(_)))
}

#[test]
fn empty_table_has_nothing_anywhere() {
    assert_eq!(found(&Regions::<3>::new(), 0), None);
}

#[test]
fn region_is_found_at_its_first_and_last_address() {
    let regions = regions();
    assert_eq!(regions.look(Ipa::new(4 * PAGE)).unwrap().region(), Some(the_ram()));
    assert_eq!(regions.look(Ipa::new(8 * PAGE - 1)).unwrap().region(), Some(the_ram()));
}

#[test]
fn beside_a_region_is_nothing() {
    let regions = regions();
    assert_eq!((found(&regions, 3), found(&regions, 8)), (None, None));
}

#[test]
fn guard_of_the_caller_is_all_that_a_lookup_needs() {
    let epochs = Epochs::new();
    let cpu = epochs.register().unwrap();
    let regions = regions();
    assert_eq!(regions.at(Ipa::new(9 * PAGE), &cpu.pin()).unwrap().region(), Some(the_device()));
}

#[test]
fn region_that_overlaps_another_is_refused() {
    let regions = regions();
    assert_eq!(regions.add(ram(7 * PAGE, 2 * PAGE)), Err(AddError::Overlaps(the_ram())));
    assert_eq!(found(&regions, 8), None);
}

#[test]
fn region_may_touch_another() {
    assert!(regions().add(ram(8 * PAGE, PAGE)).is_ok());
}

#[test]
fn region_too_many_is_refused() {
    let regions = regions();
    regions.add(ram(0, PAGE)).unwrap();
    assert_eq!(regions.add(ram(PAGE, PAGE)), Err(AddError::Full));
}

#[test]
fn room_of_a_removed_region_is_used_again() {
    let regions = regions();
    regions.add(ram(0, PAGE)).unwrap();
    regions.prepare_removal(the_device().range).unwrap().begin(&buckets()).finish();
    assert!(regions.add(ram(PAGE, PAGE)).is_ok());
}

#[test]
fn widest_tag_and_highest_address_come_back_unchanged() {
    let regions: Regions<1> = Regions::new();
    let top = (1 << ADDRESS_BITS) - PAGE - 1;
    let region = device(top, (1 << Annotation::BITS) - 1);
    regions.add(region).unwrap();
    assert_eq!(regions.look(Ipa::new(top + PAGE - 1)).unwrap().region(), Some(region));
}

#[test]
fn lookup_is_good_while_no_region_changes() {
    let regions = regions();
    assert!(look(&regions, 9).check().is_ok());
}

#[test]
fn any_change_makes_a_lookup_look_again() {
    let regions = regions();
    let lookup = look(&regions, 9);
    regions.add(ram(0, PAGE)).unwrap();
    assert!(matches!(lookup.check(), Err(Retry::Now)));
}

#[test]
fn snapshots_have_different_numbers() {
    let regions = regions();
    let before = look(&regions, 9).id();
    let after = regions.add(ram(0, PAGE)).unwrap();
    assert_ne!(before, after);
    assert_eq!(look(&regions, 9).id(), after);
}

#[test]
fn removal_needs_the_exact_range() {
    let regions = regions();
    let refused = regions.prepare_removal(range(4 * PAGE, 3 * PAGE)).err();
    assert_eq!(refused, Some(RemovalError::NoSuchRegion));
    assert_eq!(found(&regions, 4), Some(the_ram()));
}

/// From the announcement to the end, a fault in the region waits; beside it, it
/// does not.
#[test]
fn region_that_is_being_removed_is_waited_for() {
    let (regions, buckets) = (regions(), buckets());
    let removal = regions.prepare_removal(the_ram().range).unwrap();
    assert!(must_wait(&regions, 4));
    assert_eq!(found(&regions, 9), Some(the_device()));
    let unmapping = removal.begin(&buckets);
    assert!(must_wait(&regions, 4));
    unmapping.finish();
    assert_eq!(found(&regions, 4), None);
}

#[test]
fn wait_ends_with_the_removal() {
    let (regions, buckets) = (regions(), buckets());
    let removal = regions.prepare_removal(the_ram().range).unwrap();
    let Err(Retry::After(change)) = regions.look(Ipa::new(4 * PAGE)) else { panic!("it was found") };
    let unmapping = removal.begin(&buckets);
    assert!(!change.is_over());
    unmapping.finish();
    assert!(change.is_over());
}

#[test]
fn removal_is_announced_once() {
    let regions = regions();
    let _removal = regions.prepare_removal(the_ram().range).unwrap();
    assert_eq!(regions.prepare_removal(the_ram().range).err(), Some(RemovalError::Removing));
}

#[test]
fn addresses_are_free_only_when_the_removal_is_finished() {
    let (regions, buckets) = (regions(), buckets());
    let unmapping = regions.prepare_removal(the_ram().range).unwrap().begin(&buckets);
    assert_eq!(regions.add(ram(5 * PAGE, PAGE)), Err(AddError::Overlaps(the_ram())));
    unmapping.finish();
    assert!(regions.add(ram(5 * PAGE, PAGE)).is_ok());
}

#[test]
fn dropped_removal_leaves_the_region() {
    let regions = regions();
    drop(regions.prepare_removal(the_ram().range));
    assert_eq!(found(&regions, 4), Some(the_ram()));
}

#[test]
fn dropped_unmapping_leaves_the_region_and_no_invalidation() {
    let (regions, buckets) = (regions(), buckets());
    drop(regions.prepare_removal(the_ram().range).unwrap().begin(&buckets));
    assert_eq!(found(&regions, 4), Some(the_ram()));
    assert!(buckets.ticket(the_ram().range).is_ok());
}

/// Bug catalogue C42: a fault finds the device, the device begins to go, and the fault
/// must not store what it found; at no moment until the end.
#[test]
fn lookup_from_before_a_removal_fails_at_each_of_its_steps() {
    let (regions, buckets) = (regions(), buckets());
    let lookup = look(&regions, 9);
    let removal = regions.prepare_removal(the_device().range).unwrap();
    assert!(lookup.check().is_err());
    let unmapping = removal.begin(&buckets);
    assert!(lookup.check().is_err());
    unmapping.finish();
    assert!(lookup.check().is_err());
}

#[test]
fn lookup_from_before_a_cancelled_removal_fails() {
    let regions = regions();
    let lookup = look(&regions, 9);
    drop(regions.prepare_removal(the_device().range));
    assert!(lookup.check().is_err());
}

/// The other way for a fault to be found out: the ticket that it drew first.
#[test]
fn ticket_from_before_a_removal_fails() {
    let (regions, buckets) = (regions(), buckets());
    let ticket = buckets.ticket(the_ram().range).unwrap();
    let unmapping = regions.prepare_removal(the_ram().range).unwrap().begin(&buckets);
    assert!(matches!(ticket.check(), Err(Retry::After(_))));
    unmapping.finish();
    assert!(matches!(ticket.check(), Err(Retry::Now)));
}

#[test]
fn unmapping_is_of_the_whole_region() {
    let (regions, buckets) = (regions(), buckets());
    let unmapping = regions.prepare_removal(the_ram().range).unwrap().begin(&buckets);
    assert_eq!(unmapping.range(), the_ram().range);
}

#[test]
fn moved_region_is_found_where_it_went() {
    let (regions, buckets) = (regions(), buckets());
    regions.prepare_removal(the_device().range).unwrap().begin(&buckets).move_to(Ipa::new(0)).unwrap();
    assert_eq!(found(&regions, 9), None);
    assert_eq!(found(&regions, 0), Some(device(0, 42)));
}

#[test]
fn region_may_move_by_less_than_its_size() {
    let (regions, buckets) = (regions(), buckets());
    regions.prepare_removal(the_ram().range).unwrap().begin(&buckets).move_to(Ipa::new(5 * PAGE)).unwrap();
    assert_eq!((found(&regions, 4), found(&regions, 8).is_some()), (None, true));
}

#[test]
fn region_that_can_not_move_stays() {
    let (regions, buckets) = (regions(), buckets());
    let unmapping = regions.prepare_removal(the_ram().range).unwrap().begin(&buckets);
    assert_eq!(unmapping.move_to(Ipa::new(8 * PAGE)), Err(AddError::Overlaps(the_device())));
    assert_eq!(found(&regions, 4), Some(the_ram()));
    assert!(buckets.ticket(the_ram().range).is_ok());
}

#[test]
fn region_does_not_move_beyond_the_last_address() {
    let (regions, buckets) = (regions(), buckets());
    let unmapping = regions.prepare_removal(the_ram().range).unwrap().begin(&buckets);
    let refused = unmapping.move_to(Ipa::new((1 << ADDRESS_BITS) - 1));
    assert_eq!((refused, found(&regions, 4)), (Err(AddError::OutOfRange), Some(the_ram())));
}

/// Bug catalogue C41: numbers that wrap. Ten changes across the wrap, each noticed by
/// a lookup from before, none taken for one of the others.
#[test]
fn number_that_wraps_is_a_number_like_any_other() {
    let version = AtomicU64::new(0_u64.wrapping_sub(3 * NEXT));
    let regions: Regions<1> = Regions { version, slots: [Slot::empty()] };
    let mut numbers = Vec::new();
    for _ in 0..5 {
        for change in [true, false] {
            let lookup = look(&regions, 0);
            assert!(lookup.check().is_ok());
            if change {
                regions.add(ram(0, PAGE)).unwrap();
            } else {
                regions.prepare_removal(range(0, PAGE)).unwrap().begin(&buckets()).finish();
            }
            assert!(lookup.check().is_err());
            assert!(!numbers.contains(&lookup.id()));
            numbers.push(lookup.id());
        }
    }
    // A removal is two changes.
    assert_eq!(regions.version.load(Ordering::Relaxed), 12 * NEXT);
}

#[derive(Clone, Debug)]
enum Op {
    Add(u64, u64),
    Remove(prop::sample::Index),
    Cancel(prop::sample::Index),
    Move(prop::sample::Index, u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..16_u64, 1..6_u64).prop_map(|(page, pages)| Op::Add(page, pages)),
        any::<prop::sample::Index>().prop_map(Op::Remove),
        any::<prop::sample::Index>().prop_map(Op::Cancel),
        (any::<prop::sample::Index>(), 0..16_u64).prop_map(|(which, page)| Op::Move(which, page)),
    ];
    prop::collection::vec(op, 0..40)
}

/// What a list makes of it: first and last page of each region, and its payload.
type List = Vec<(u64, u64, u64)>;

fn is_free(list: &List, (first, end): (u64, u64)) -> bool {
    list.iter().all(|&(other, other_end, _)| end <= other || other_end <= first)
}

fn apply(list: &mut List, regions: &Regions<4>, buckets: &Buckets<4>, op: Op, payload: u64) {
    match op {
        Op::Add(page, pages) => {
            let kind = Kind::Ram(payload);
            let added = regions.add(Region { range: range(page * PAGE, pages * PAGE), kind });
            let fits = is_free(list, (page, page + pages)) && list.len() < 4;
            assert_eq!(added.is_ok(), fits, "{added:?}");
            if fits {
                list.push((page, page + pages, payload));
            }
        }
        Op::Remove(which) | Op::Cancel(which) | Op::Move(which, _) => {
            if list.is_empty() {
                return;
            }
            let old = list.swap_remove(which.index(list.len()));
            let (page, end, payload) = old;
            let pages = end - page;
            let removal = regions.prepare_removal(range(page * PAGE, pages * PAGE)).unwrap();
            let unmapping = removal.begin(buckets);
            match op {
                Op::Remove(_) => _ = unmapping.finish(),
                Op::Move(_, to) if is_free(list, (to, to + pages)) => {
                    unmapping.move_to(Ipa::new(to * PAGE)).unwrap();
                    list.push((to, to + pages, payload));
                }
                Op::Move(_, to) => {
                    assert!(unmapping.move_to(Ipa::new(to * PAGE)).is_err());
                    list.push(old);
                }
                _ => {
                    drop(unmapping);
                    list.push(old);
                }
            }
        }
    }
}

proptest! {
    /// Any changes, compared page by page with a list.
    #[test]
    fn regions_agree_with_a_list(ops in ops()) {
        let (regions, buckets, mut list) = (Regions::<4>::new(), buckets(), List::new());
        for (op, payload) in ops.into_iter().zip(1..) {
            apply(&mut list, &regions, &buckets, op, payload);
            for page in 0..24 {
                let expected = list.iter().find(|&&(first, end, _)| (first..end).contains(&page));
                let expected = expected.map(|&(first, end, payload)| Region {
                    range: range(first * PAGE, (end - first) * PAGE),
                    kind: Kind::Ram(payload),
                });
                prop_assert_eq!(found(&regions, page), expected);
            }
        }
    }
}
