//! The search against the judge: random networks in random zones, and around every clock change of the world.

use std::cell::Cell;
use std::collections::BTreeMap;

use chrono::NaiveDate;
use chrono_tz::{TZ_VARIANTS, Tz};
use kit::ids::{ClinicId, ProviderId};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::changes::{changing_zones, minutes};
use super::oracle::{DAY, Oracle, QUARTER, date, offered, shown};
use super::random::worlds;
use super::worlds::{GRID, World};
use crate::domain::check::{Question, check};
use crate::domain::search::{Search, Slot};
use crate::domain::shift;
use crate::domain::span::instant;

/// Compares all answers of a search, its pages `size` long; gives how many slots there are.
fn compare(world: &World, size: usize) -> Result<usize, TestCaseError> {
    let expected = offered(world);
    let network = world.network();
    let search = Search::new(&network, &world.query, world.now).unwrap();

    let mut paged: Vec<Slot> = vec![];
    loop {
        let page = search.slots(paged.last().copied(), size);
        let last = page.len() < size;
        paged.extend(page);
        if last {
            break;
        }
    }
    prop_assert_eq!(&paged, &expected);

    let mut counts: BTreeMap<(NaiveDate, ClinicId), i32> = BTreeMap::new();
    for slot in &expected {
        let clinic = world.catalog.clinics.iter().find(|c| c.id == slot.clinic_id).unwrap();
        let day = shown(clinic.time_zone, slot.start).div_euclid(DAY);
        *counts.entry((date(day), clinic.id)).or_default() += 1;
    }
    prop_assert_eq!(search.day_counts(), counts);
    Ok(expected.len())
}

fn zones() -> impl Strategy<Value = Tz> {
    select(&TZ_VARIANTS[..])
}

/// Any zones at any time.
fn anywhere() -> impl Strategy<Value = World> {
    (zones(), zones(), minutes()).prop_flat_map(|(one, other, middle)| worlds([one, other], middle))
}

proptest! {
    #![proptest_config(Config::with_cases(600))]
    #[test]
    fn the_search_offers_what_the_definitions_say(world in anywhere(), size in 1..40usize) {
        compare(&world, size)?;
    }
}

proptest! {
    #![proptest_config(Config::with_cases(100))]
    #[test]
    fn the_check_allows_what_the_definitions_say(world in anywhere(), starts in prop::collection::vec(0..288i64, 6)) {
        let network = world.network();
        let day = world.query.first.unwrap_or(world.now.date_naive());
        for clinic in &world.catalog.clinics {
            let oracle = Oracle::new(&world, clinic, [day, shift(day, 1)]);
            let fitting: Vec<_> = world.catalog.providers.iter().map(|p| (p.id, oracle.fitting(p))).collect();
            let ends = fitting.iter().flat_map(|(_, starts)| [starts.first(), starts.last()]).flatten().copied();
            for start in starts.iter().map(|n| oracle.midnight() + n * GRID).chain(ends) {
                let mut fit: Vec<ProviderId> =
                    fitting.iter().filter(|(_, starts)| starts.contains(&start)).map(|(id, _)| *id).collect();
                let mut question = Question {
                    service_type: world.query.service_type,
                    clinic: clinic.id,
                    provider: None,
                    room: None,
                    start,
                    overriding: false,
                    standing_end: None,
                };
                for (provider, _) in &fitting {
                    question.provider = Some(*provider);
                    let answer = check(&network, &question, world.now).unwrap();
                    prop_assert_eq!(answer.ok, fit.contains(provider), "{:?}: {:?}", question, answer.blocks);
                }
                question.provider = None;
                let answer = check(&network, &question, world.now).unwrap();
                fit.sort_by_key(|provider| (oracle.load(*provider, start), *provider));
                let providers: Vec<ProviderId> = answer.providers.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!((answer.ok, providers), (!fit.is_empty(), fit), "{:?}", question);
            }
        }
    }
}

#[test]
fn the_zones_that_change_their_clocks_are_known_with_every_change() {
    let zones = changing_zones();
    let changes = |zone: Tz| zones.iter().find(|(z, _)| *z == zone).map_or(0, |(_, changes)| changes.len());
    assert!(zones.len() > 150, "{} zones change", zones.len());
    assert_eq!(changes(Tz::America__New_York), 14);
    assert_eq!(changes(Tz::Africa__Casablanca), 15);
    assert_eq!(changes(Tz::Asia__Kolkata), 0);
    for (zone, changes) in zones {
        let on_quarters = changes.iter().all(|change| change % QUARTER == 0);
        assert!(
            on_quarters,
            "{zone} changes at other times than the clock of the judge is read: {changes:?}"
        );
    }
}

/// Each share of the zones has a world around each of its changes; the same ones in each run.
fn sweep(share: usize, shares: usize) {
    let mut runner = TestRunner::deterministic();
    let (worlds_seen, with_slots) = (Cell::new(0), Cell::new(0));
    for (zone, changes) in changing_zones().into_iter().skip(share).step_by(shares) {
        for change in changes {
            let case = (zones().prop_flat_map(move |other| worlds([zone, other], change)), 1..40usize)
                .new_tree(&mut runner)
                .unwrap();
            let outcome = runner.run_one(case, |(world, size)| {
                let slots = compare(&world, size)?;
                worlds_seen.set(worlds_seen.get() + 1);
                with_slots.set(with_slots.get() + usize::from(slots > 0));
                Ok(())
            });
            if let Err(fault) = outcome {
                panic!("{zone}, clocks changing at {}: {fault}", instant(change));
            }
        }
    }
    let (worlds_seen, with_slots) = (worlds_seen.get(), with_slots.get());
    assert!(worlds_seen > 300 && with_slots > worlds_seen / 4, "{with_slots} of {worlds_seen} had slots");
}

macro_rules! sweeps {
    ($($name:ident: $share:literal of $shares:literal;)*) => {
        $(#[test]
        fn $name() {
            sweep($share, $shares);
        })*
    };
}

sweeps! {
    search_holds_around_every_clock_change_in_the_first_share_of_zones: 0 of 6;
    search_holds_around_every_clock_change_in_the_second_share_of_zones: 1 of 6;
    search_holds_around_every_clock_change_in_the_third_share_of_zones: 2 of 6;
    search_holds_around_every_clock_change_in_the_fourth_share_of_zones: 3 of 6;
    search_holds_around_every_clock_change_in_the_fifth_share_of_zones: 4 of 6;
    search_holds_around_every_clock_change_in_the_last_share_of_zones: 5 of 6;
}
