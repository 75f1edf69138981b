//! Guards and tickets on one thread: what is disturbed by what.

use super::{Buckets, RUNNING, Retry, SEQUENCE_ONE};
use crate::addr::{ADDRESS_BITS, Ipa, IpaRange};
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
use std::vec::Vec;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Eight buckets: addresses 16 MiB apart share one.
fn buckets() -> Buckets<8> {
    Buckets::new()
}

/// The words, for counting who touched what.
fn words<const N: usize>(buckets: &Buckets<N>) -> Vec<u64> {
    buckets.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

#[test]
fn ticket_is_good_while_nothing_happens() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(0, PAGE)).unwrap();
    assert!(ticket.check().is_ok());
    assert!(ticket.check().is_ok());
}

#[test]
fn no_ticket_while_an_invalidation_runs() {
    let buckets = buckets();
    let _guard = buckets.begin(range(0, PAGE));
    assert!(matches!(buckets.ticket(range(0, PAGE)), Err(Retry::After(_))));
}

#[test]
fn check_during_an_invalidation_says_after() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(0, PAGE)).unwrap();
    let _guard = buckets.begin(range(0, PAGE));
    assert!(matches!(ticket.check(), Err(Retry::After(_))));
}

#[test]
fn check_after_an_invalidation_says_now() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(0, PAGE)).unwrap();
    drop(buckets.begin(range(0, PAGE)));
    assert!(matches!(ticket.check(), Err(Retry::Now)));
}

#[test]
fn ticket_drawn_after_an_invalidation_is_good() {
    let buckets = buckets();
    drop(buckets.begin(range(0, PAGE)));
    assert!(buckets.ticket(range(0, PAGE)).unwrap().check().is_ok());
}

#[test]
fn neighbours_two_mebibytes_apart_do_not_disturb_each_other() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(0, 2 * MIB)).unwrap();
    let _guard = buckets.begin(range(2 * MIB, 14 * MIB));
    assert!(ticket.check().is_ok());
}

#[test]
fn bucket_is_found_from_any_address_in_its_two_mebibytes() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(2 * MIB - PAGE, PAGE)).unwrap();
    let _guard = buckets.begin(range(0, 1));
    assert!(ticket.check().is_err());
}

#[test]
fn last_byte_of_a_range_counts_and_the_next_does_not() {
    let buckets = buckets();
    let _guard = buckets.begin(range(0, 2 * MIB + 1));
    assert_eq!(words(&buckets), [1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn long_range_touches_each_bucket_once() {
    let buckets = buckets();
    let guard = buckets.begin(range(6 * MIB, 1 << 50));
    assert_eq!(words(&buckets), [1; 8]);
    drop(guard);
    assert_eq!(words(&buckets), [SEQUENCE_ONE; 8]);
}

#[test]
fn range_at_the_very_top_has_its_bucket() {
    let buckets = buckets();
    let _guard = buckets.begin(range((1 << ADDRESS_BITS) - 2, 1));
    assert_eq!(words(&buckets), [0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn single_bucket_serves_every_address() {
    let buckets: Buckets<1> = Buckets::new();
    let _guard = buckets.begin(range(0, PAGE));
    assert!(buckets.ticket(range(1 << 40, PAGE)).is_err());
}

#[test]
fn ticket_for_a_large_block_fails_if_any_part_of_it_changed() {
    let buckets = buckets();
    let ticket = buckets.ticket(range(0, 16 * MIB)).unwrap();
    drop(buckets.begin(range(14 * MIB, PAGE)));
    assert!(matches!(ticket.check(), Err(Retry::Now)));
}

#[test]
fn overlapping_invalidations_both_have_to_end() {
    let buckets = buckets();
    let first = buckets.begin(range(0, PAGE));
    let second = buckets.begin(range(PAGE, PAGE));
    drop(first);
    assert!(buckets.ticket(range(0, PAGE)).is_err());
    drop(second);
    assert!(buckets.ticket(range(0, PAGE)).is_ok());
}

#[test]
fn change_is_over_when_the_invalidation_ends() {
    let buckets = buckets();
    let guard = buckets.begin(range(0, PAGE));
    let Err(Retry::After(change)) = buckets.ticket(range(0, PAGE)) else { panic!("no invalidation") };
    assert!(!change.is_over());
    drop(guard);
    assert!(change.is_over());
}

#[test]
fn change_is_over_even_if_the_next_one_has_begun() {
    let buckets = buckets();
    let first = buckets.begin(range(0, PAGE));
    let Err(Retry::After(change)) = buckets.ticket(range(0, PAGE)) else { panic!("no invalidation") };
    let _second = buckets.begin(range(0, PAGE));
    drop(first);
    assert!(change.is_over());
}

#[test]
fn another_beginning_does_not_end_a_change() {
    let buckets = buckets();
    let _first = buckets.begin(range(0, PAGE));
    let Err(Retry::After(change)) = buckets.ticket(range(0, PAGE)) else { panic!("no invalidation") };
    let _second = buckets.begin(range(0, PAGE));
    assert!(!change.is_over());
}

/// Two buckets, two invalidations before their sequence numbers wrap.
fn near_the_wrap() -> Buckets<2> {
    let last_but_one = SEQUENCE_ONE.wrapping_neg().wrapping_sub(SEQUENCE_ONE);
    Buckets { words: [AtomicU64::new(last_but_one), AtomicU64::new(last_but_one)] }
}

#[test]
fn sequence_that_wraps_is_a_change_like_any_other() {
    let buckets = near_the_wrap();
    for _ in 0..4 {
        let ticket = buckets.ticket(range(0, 4 * MIB)).unwrap();
        assert!(ticket.check().is_ok());
        let guard = buckets.begin(range(0, PAGE));
        assert!(matches!(ticket.check(), Err(Retry::After(_))));
        drop(guard);
        assert!(matches!(ticket.check(), Err(Retry::Now)));
    }
    assert_eq!(words(&buckets)[0], 2 * SEQUENCE_ONE);
}

#[test]
#[should_panic(expected = "too many invalidations at once")]
fn count_never_runs_into_the_sequence() {
    let buckets: Buckets<1> = Buckets { words: [AtomicU64::new(RUNNING)] };
    core::mem::forget(buckets.begin(range(0, PAGE)));
}

/// A range of up to 40 MiB in the first 64, so that eight buckets are too few
/// to tell all apart.
fn any_range() -> impl Strategy<Value = (u64, u64)> {
    (0..64 * MIB, 1..40 * MIB)
}

/// The buckets of a range, byte by 2 MiB, as the definition has it.
fn buckets_by_definition((start, size): (u64, u64)) -> Vec<usize> {
    let numbers = start / (2 * MIB)..=(start + size - 1) / (2 * MIB);
    (0..8).filter(|&bucket| numbers.clone().any(|number| number % 8 == bucket)).map(|b| b as usize).collect()
}

proptest! {
    /// Any invalidations, ended in any order, against counters that say
    /// bucket by bucket what ran since the ticket was drawn.
    #[test]
    fn check_agrees_with_counting_by_hand(
        mine in any_range(),
        steps in prop::collection::vec((any_range(), any::<prop::sample::Index>(), any::<bool>()), 0..20),
    ) {
        let buckets = buckets();
        let ticket = buckets.ticket(range(mine.0, mine.1)).unwrap();
        let mut running = Vec::new();
        let mut ended = [0_u32; 8];
        for (other, index, end) in steps {
            if end && !running.is_empty() {
                let (guard, other) = running.swap_remove(index.index(running.len()));
                drop(guard);
                buckets_by_definition(other).into_iter().for_each(|bucket| ended[bucket] += 1);
            } else {
                running.push((buckets.begin(range(other.0, other.1)), other));
            }
            let mut in_progress = [0_u32; 8];
            for (_, other) in &running {
                buckets_by_definition(*other).into_iter().for_each(|bucket| in_progress[bucket] += 1);
            }
            let mine = buckets_by_definition(mine);
            let expected = if mine.iter().any(|&bucket| in_progress[bucket] > 0) {
                "after"
            } else if mine.iter().any(|&bucket| ended[bucket] > 0) {
                "now"
            } else {
                "ok"
            };
            let verdict = match ticket.check() {
                Ok(()) => "ok",
                Err(Retry::Now) => "now",
                Err(Retry::After(_)) => "after",
            };
            prop_assert_eq!(verdict, expected);
        }
    }
}
