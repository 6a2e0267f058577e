//! The search engine alone, on a network in memory: what a search costs, how that grows, and what a change costs.
//!
//! Each case first proves that it finds what it should. `cargo xtask bench --only engine` runs this and reports the medians.

use std::hint::black_box;
use std::time::Duration;

use bench::{Sample, Shape, Taken, Week, ZONES, hundred_providers};
use chrono::NaiveDate;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use scheduling::domain::network::{Busy, Network};
use scheduling::domain::search::{Query, Search, Slot};

/// Slots of a page unless a caller asks for another number.
const PAGE: usize = 50;
/// Providers, days searched and taken intervals in all, each with each.
const PROVIDERS: [usize; 3] = [10, 100, 1_000];
const DAYS: [u64; 3] = [7, 31, 62];
const INTERVALS: [usize; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];

criterion_group!(engine, searches, changes, growth);
criterion_main!(engine);

fn searches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let sample = hundred_providers().build(first());
    let case = Case { name: "100 providers 14 days", days: 14, slots: 100 * 10 * 8, sample };
    case.measure(&mut group);

    let shape = Shape {
        clinics: 1,
        zones: ZONES,
        providers: 20,
        shifts: vec![(9 * 60, 16 * 60 + 40)],
        week: Week::EveryDay,
        visit_minutes: 20,
        taken: Taken::Nothing,
    };
    let case = Case { name: "20 providers 30 days", days: 30, slots: 13_800, sample: shape.build(first()) };
    case.measure(&mut group);

    let shape =
        Shape { clinics: 10, providers: 1_000, taken: Taken::Half { days: 31 }, ..hundred_providers() };
    let sample = shape.build(first());
    let case = Case { name: "1000 providers 31 days", days: 31, slots: 1_000 * 23 * 8, sample };
    case.measure(&mut group);
}

/// A day and the day after its clocks went forward lie in the first two weeks.
fn first() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, 2).expect("a Monday")
}

struct Case {
    name: &'static str,
    days: u64,
    /// How many there are.
    slots: usize,
    sample: Sample,
}

impl Case {
    fn measure(&self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let (network, query) = (self.sample.network(), self.sample.query(self.days));
        let search = || search(&network, &query, &self.sample);
        let all = search().slots(None, usize::MAX);
        assert_eq!(all.len(), self.slots, "{}: all slots", self.name);
        assert_eq!(search().slots(None, PAGE), all[..PAGE], "{}: the first page", self.name);
        let counted: i32 = search().day_counts().values().sum();
        assert_eq!(counted as usize, self.slots, "{}: the counts", self.name);
        group.bench_function(BenchmarkId::new("page", self.name), |b| b.iter(|| page(search())));
        group.bench_function(BenchmarkId::new("slots", self.name), |b| {
            b.iter(|| search().slots(None, usize::MAX));
        });
        group.bench_function(BenchmarkId::new("counts", self.name), |b| b.iter(|| search().day_counts()));
    }
}

fn search<'a>(network: &'a Network, query: &Query, sample: &Sample) -> Search<'a> {
    Search::new(black_box(network), black_box(query), sample.now()).expect("it is all there")
}

fn page(search: Search<'_>) -> Vec<Slot> {
    search.slots(None, PAGE)
}

/// As a replica does it: the state that searches read stays, a copy that shares most with it is changed.
fn changes(criterion: &mut Criterion) {
    const EACH: usize = 1_000;
    let shape = Shape {
        clinics: 10,
        providers: 1_000,
        taken: Taken::Spread { intervals: 1_000 * EACH },
        ..hundred_providers()
    };
    let sample = shape.build(first());
    let network = sample.network();
    let (provider, calendar, busy) = &sample.members[0];
    assert_eq!(busy.len(), EACH);
    // A visit that swaps its time with nobody.
    let moved = Busy { occupied: busy[1].occupied, visit: busy[1].visit, ..busy[0] };
    let mut group = criterion.benchmark_group("change");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("calendar", |b| {
        b.iter(|| {
            let mut next = network.clone();
            next.set_calendar(*provider, calendar.clone());
            next
        });
    });
    group.bench_function("busy", |b| {
        b.iter(|| {
            let mut next = network.clone();
            next.take_busy([(*provider, moved.appointment_id, Some(moved))]);
            next
        });
    });
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("rebuild", |b| {
        b.iter(|| network.rolled(sample.now().date_naive()));
    });
}

fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("growth");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400));
    for providers in PROVIDERS {
        for intervals in INTERVALS {
            let taken = Taken::Spread { intervals };
            let clinics = providers.div_ceil(100).max(3);
            let sample = Shape { clinics, providers, taken, ..hundred_providers() }.build(first());
            let network = sample.network();
            for days in DAYS {
                let query = sample.query(days);
                let search = || search(&network, &query, &sample);
                let name = format!("{providers} {days} {intervals}");
                group.bench_function(BenchmarkId::new("page", &name), |b| b.iter(|| page(search())));
                group.bench_function(BenchmarkId::new("counts", &name), |b| b.iter(|| search().day_counts()));
            }
        }
    }
}
