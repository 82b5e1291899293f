//! The rules of outlier ejection, one by one.

use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{
    EjectionCause, EndpointState, FailurePercentage, Gate, Outcome, OutlierDetector, OutlierEvent,
    OutlierSettings, SuccessRate,
};
use waypost_simulation::{Ready, open};

const SECOND: Duration = Duration::from_secs(1);
const SEED: u64 = 4_711;

fn detector(settings: &OutlierSettings, ready: &Ready, now: Instant) -> OutlierDetector {
    let mut detector = OutlierDetector::new(settings.clone(), SEED, now);
    assert!(detector.set_endpoints(&**ready, now).is_empty());
    detector
}

fn only_statistics() -> OutlierSettings {
    let mut settings = OutlierSettings::default();
    settings.consecutive_failures = None;
    settings.max_ejection_percent = 50;
    settings
}

/// Failures first, so that there are few in a row at the end.
fn calls(endpoint: &Arc<EndpointState>, failed: usize, ok: usize, now: Instant) {
    for _ in 0..failed {
        endpoint.started(now).finished(now, Outcome::Failed);
    }
    for _ in 0..ok {
        endpoint.started(now).finished(now, Outcome::Ok);
    }
}

fn causes(events: &[OutlierEvent]) -> Vec<(u16, EjectionCause)> {
    let cause = |event: &OutlierEvent| match event {
        OutlierEvent::Ejected { endpoint, cause, .. } => Some((endpoint.endpoint().port, *cause)),
        _ => None,
    };
    events.iter().filter_map(cause).collect()
}

fn durations(events: &[OutlierEvent]) -> Vec<Duration> {
    let duration = |event: &OutlierEvent| match event {
        OutlierEvent::Ejected { duration, .. } => Some(*duration),
        _ => None,
    };
    events.iter().filter_map(duration).collect()
}

#[test]
fn success_rates_far_below_the_mean_are_ejected() {
    let now = Instant::now();
    let ready = open(10, now);
    let mut detector = detector(&only_statistics(), &ready, now);
    calls(&ready[0], 20, 80, now);
    for endpoint in &ready[1..] {
        calls(endpoint, 1, 99, now);
    }
    assert!(detector.tick(now + 9 * SECOND).is_empty());
    let events = detector.tick(now + 10 * SECOND);
    // Rates: one of 0.80, nine of 0.99; mean 0.971, deviation 0.057; threshold 0.971 - 1.9 * 0.057.
    let [(1, EjectionCause::SuccessRate { rate, threshold })] = causes(&events)[..] else {
        panic!("{events:?}")
    };
    assert!((rate - 0.80).abs() < 1e-9 && (threshold - 0.8627).abs() < 1e-9, "{rate}, {threshold}");
    assert_eq!(durations(&events), [30 * SECOND]);
    assert_eq!(ready[0].gate(), Gate::Ejected);
}

#[test]
fn success_rates_need_calls_and_endpoints_enough() {
    let now = Instant::now();
    for (count, volume) in [(4, 100), (10, 99)] {
        let ready = open(count, now);
        let mut settings = only_statistics();
        settings.failure_percentage = None;
        let mut detector = detector(&settings, &ready, now);
        calls(&ready[0], volume, 0, now);
        for endpoint in &ready[1..] {
            calls(endpoint, 0, volume, now);
        }
        assert!(detector.tick(now + 10 * SECOND).is_empty());
    }
}

#[test]
fn failure_percentage_counts_whatever_the_others_do() {
    let now = Instant::now();
    let ready = open(10, now);
    let mut settings = only_statistics();
    settings.success_rate = None;
    let mut detector = detector(&settings, &ready, now);
    calls(&ready[0], 86, 14, now);
    calls(&ready[1], 85, 15, now);
    calls(&ready[2], 49, 0, now);
    calls(&ready[3], 50, 0, now);
    // Calls that were given up or not sent are no calls.
    for _ in 0..1_000 {
        drop(ready[3].started(now));
        ready[3].started(now).finished(now, Outcome::NotSent);
    }
    let events = detector.tick(now + 10 * SECOND);
    let ports: Vec<u16> = causes(&events).into_iter().map(|(port, _)| port).collect();
    assert_eq!(ports, [1, 4]);
    // An interval without calls has no outliers, and what was counted is not counted again.
    assert!(detector.tick(now + 20 * SECOND).is_empty());
}

/// Who of a hundred that fail is ejected in one interval, by this rule at this percentage.
fn ejected_by(by_rate: bool, percentage: u8, seed: u64) -> Vec<u16> {
    let now = Instant::now();
    let ready = open(200, now);
    let mut settings = only_statistics();
    settings.max_ejection_percent = 100;
    let rule = (SuccessRate::default(), FailurePercentage::default());
    settings.success_rate = by_rate.then_some(rule.0).map(|mut rule| {
        (rule.enforcement_percentage, rule.stdev_factor) = (percentage, 0.5);
        rule
    });
    settings.failure_percentage = (!by_rate).then_some(rule.1).map(|mut rule| {
        rule.enforcement_percentage = percentage;
        rule
    });
    let mut detector = OutlierDetector::new(settings, seed, now);
    detector.set_endpoints(&*ready, now);
    for (n, endpoint) in ready.iter().enumerate() {
        let failed = if n < 100 { 100 } else { 0 };
        calls(endpoint, failed, 100 - failed, now);
    }
    let events = detector.tick(now + 10 * SECOND);
    causes(&events).into_iter().map(|(port, _)| port).collect()
}

#[test]
fn a_rule_is_enforced_as_often_as_it_says() {
    for by_rate in [true, false] {
        assert_eq!(ejected_by(by_rate, 0, SEED), [0; 0]);
        assert_eq!(ejected_by(by_rate, 100, SEED), (1..=100).collect::<Vec<_>>());
        assert_eq!(
            ejected_by(by_rate, 40, SEED),
            ejected_by(by_rate, 40, SEED),
            "the same for the same seed"
        );
        assert_ne!(ejected_by(by_rate, 40, SEED), ejected_by(by_rate, 40, SEED + 1));
        let all: Vec<usize> = (0..20).map(|seed| ejected_by(by_rate, 40, seed).len()).collect();
        // Of 2,000 endpoints 800, more or less: a standard deviation is 22.
        assert!(all.iter().sum::<usize>().abs_diff(800) < 100, "{all:?}");
    }
}

#[test]
fn failures_in_a_row_are_ejected_at_once() {
    let now = Instant::now();
    let ready = open(10, now);
    let settings = OutlierSettings::default();
    let mut detector = detector(&settings, &ready, now);
    calls(&ready[0], 4, 1, now);
    calls(&ready[0], 4, 0, now);
    assert!(!settings.suspects(&ready[0]) && detector.examine(&ready[0], now).is_empty());
    calls(&ready[0], 1, 0, now);
    assert!(settings.suspects(&ready[0]));
    let events = detector.examine(&ready[0], now);
    assert_eq!(causes(&events), [(1, EjectionCause::ConsecutiveFailures(5))]);
    assert!(!settings.suspects(&ready[0]) && detector.examine(&ready[0], now).is_empty());
    assert_eq!(detector.next_wake(), now + 10 * SECOND);
}

#[test]
fn no_more_are_ejected_than_the_cap_but_one() {
    let now = Instant::now();
    for (count, percent, most) in
        [(10, 10, 1), (10, 0, 0), (3, 10, 1), (10, 30, 3), (10, 25, 3), (10, 100, 10)]
    {
        let ready = open(count, now);
        let mut settings = OutlierSettings::default();
        settings.max_ejection_percent = percent;
        settings.panic_threshold = 0;
        let mut detector = detector(&settings, &ready, now);
        for endpoint in &*ready {
            calls(endpoint, 5, 0, now);
            detector.examine(endpoint, now);
        }
        assert_eq!(detector.ejected(), most);
        assert_eq!(ready.iter().filter(|endpoint| endpoint.gate() == Gate::Ejected).count(), most);
    }
}

#[test]
fn ejections_last_longer_from_time_to_time_and_are_forgiven() {
    let mut now = Instant::now();
    let ready = open(10, now);
    let settings = OutlierSettings::default();
    let mut detector = detector(&settings, &ready, now);
    let mut seconds = Vec::new();
    for _ in 0..12 {
        calls(&ready[0], 5, 0, now);
        let duration = durations(&detector.examine(&ready[0], now))[0];
        seconds.push(duration.as_secs());
        let end = now + duration;
        while now < end {
            assert_eq!(ready[0].gate(), Gate::Ejected);
            now = detector.next_wake();
            detector.tick(now);
        }
        assert_eq!((now, ready[0].gate()), (end, Gate::Open));
    }
    assert_eq!(seconds, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    // Twelve ejections, less four for four intervals in use throughout, and this one: the ninth.
    for _ in 0..4 {
        now = detector.next_wake();
        detector.tick(now);
    }
    calls(&ready[0], 5, 0, now);
    let events = detector.examine(&ready[0], now);
    assert_eq!(durations(&events), [270 * SECOND]);
    let mut now = now + 270 * SECOND;
    detector.tick(now);
    for _ in 0..30 {
        now = detector.next_wake();
        detector.tick(now);
    }
    calls(&ready[0], 5, 0, now);
    assert_eq!(durations(&detector.examine(&ready[0], now)), [30 * SECOND]);
}

#[test]
fn panic_counts_endpoints_without_a_connection_as_missing() {
    let now = Instant::now();
    let ready = open(10, now);
    let mut detector = detector(&OutlierSettings::default(), &ready, now);
    calls(&ready[0], 5, 0, now);
    detector.examine(&ready[0], now);
    for endpoint in &ready[1..=4] {
        endpoint.close();
    }
    assert!(detector.tick(now + SECOND).is_empty());
    ready[5].close();
    let events = detector.tick(now + 2 * SECOND);
    assert!(matches!(events[..], [OutlierEvent::PanicBegan { available: 4, total: 10 }]), "{events:?}");
    assert_eq!((ready[0].gate(), detector.ejected()), (Gate::Open, 1));
    ready[5].open();
    assert!(matches!(detector.tick(now + 3 * SECOND)[..], [OutlierEvent::PanicEnded]));
    assert_eq!(ready[0].gate(), Gate::Ejected);
    // The ejection has gone on meanwhile.
    let events = detector.tick(now + 30 * SECOND);
    assert!(matches!(events[..], [OutlierEvent::Readmitted { .. }]), "{events:?}");
    assert_eq!(ready[0].gate(), Gate::Open);
}

#[test]
fn an_endpoint_that_leaves_is_forgotten_and_one_that_stays_is_not() {
    let now = Instant::now();
    let ready = open(10, now);
    let mut settings = OutlierSettings::default();
    settings.max_ejection_percent = 100;
    let mut detector = detector(&settings, &ready, now);
    for endpoint in &ready[..2] {
        calls(endpoint, 5, 0, now);
        detector.examine(endpoint, now);
    }
    assert!(detector.set_endpoints(&ready[1..], now).is_empty());
    assert_eq!((ready[0].gate(), ready[1].gate(), detector.ejected()), (Gate::Open, Gate::Ejected, 1));
    // A gate that nobody would open again must not come about.
    assert!(detector.set_endpoints(&*ready, now).is_empty());
    detector.tick(now + 30 * SECOND);
    assert!(ready.iter().all(|endpoint| endpoint.gate() == Gate::Open));
}

#[test]
fn extreme_settings_are_no_error() {
    let now = Instant::now();
    for extreme in [Duration::ZERO, Duration::MAX] {
        let mut settings = OutlierSettings::default();
        (settings.interval, settings.base_ejection_time, settings.max_ejection_time) =
            (extreme, extreme, extreme);
        (settings.max_ejection_percent, settings.panic_threshold) = (u8::MAX, u8::MAX);
        settings.consecutive_failures = Some(0);
        let ready = open(3, now);
        let mut detector = detector(&settings, &ready, now);
        assert!(!settings.suspects(&ready[0]));
        for endpoint in &*ready {
            calls(endpoint, 1, 0, now);
            detector.examine(endpoint, now);
        }
        assert_eq!(detector.ejected(), 3);
        assert!(detector.next_wake() >= now);
        detector.tick(now + SECOND);
    }
}

proptest! {
    /// Whatever happens: the gates are those of the ejections, unless in panic; the cap holds; and all are back in the end.
    #[test]
    fn every_ejection_ends(
        steps in prop::collection::vec((0_usize..8, 0_usize..120, 0_usize..120, 0_u64..40, any::<bool>()), 1..60),
        percent in 0_u8..=100,
        panic in 0_u8..=100,
    ) {
        let mut now = Instant::now();
        let ready = open(8, now);
        let mut settings = OutlierSettings::default();
        settings.max_ejection_percent = percent;
        settings.panic_threshold = panic;
        let mut detector = detector(&settings, &ready, now);
        let cap = (8 * usize::from(percent)).div_ceil(100);
        for (which, failed, ok, wait, connected) in steps {
            calls(&ready[which], failed, ok, now);
            if connected { ready[which].open() } else { ready[which].close() }
            detector.examine(&ready[which], now);
            now += SECOND * u32::try_from(wait).unwrap();
            detector.tick(now);
            prop_assert!(detector.ejected() <= cap);
            prop_assert!(detector.next_wake() > now);
            for endpoint in &*ready {
                endpoint.open();
            }
            let set_aside = ready.iter().filter(|endpoint| endpoint.gate() == Gate::Ejected).count();
            prop_assert_eq!(set_aside, if detector.in_panic() { 0 } else { detector.ejected() });
        }
        for _ in 0..2 {
            now += 301 * SECOND;
            detector.tick(now);
        }
        prop_assert_eq!(detector.ejected(), 0);
        prop_assert!(ready.iter().all(|endpoint| endpoint.gate() == Gate::Open));
    }
}

#[test]
fn calls_that_end_during_an_ejection_are_not_held_against_the_endpoint_after_it() {
    let now = Instant::now();
    let ready = open(10, now);
    let mut settings = OutlierSettings::default();
    settings.base_ejection_time = 15 * SECOND;
    let mut detector = detector(&settings, &ready, now);
    calls(&ready[0], 5, 0, now);
    assert_eq!(durations(&detector.examine(&ready[0], now)), [15 * SECOND]);
    detector.tick(now + 10 * SECOND);
    calls(&ready[0], 200, 0, now + 12 * SECOND);
    let events = detector.tick(now + 15 * SECOND);
    assert!(matches!(events[..], [OutlierEvent::Readmitted { .. }]), "{events:?}");
    assert!(detector.tick(now + 20 * SECOND).is_empty());
    assert_eq!(ready[0].gate(), Gate::Open);
}

#[test]
fn endpoints_that_come_and_go_one_by_one_count_as_those_given_together() {
    let now = Instant::now();
    let ready = open(4, now);
    let mut detector = OutlierDetector::new(OutlierSettings::default(), SEED, now);
    for endpoint in &*ready {
        detector.insert(endpoint);
    }
    calls(&ready[1], 5, 0, now);
    assert_eq!(causes(&detector.examine(&ready[1], now)), [(2, EjectionCause::ConsecutiveFailures(5))]);
    assert_eq!((detector.ejected(), ready[1].gate()), (1, Gate::Ejected));
    // It leaves: it is no longer ejected, nor in the way of the next.
    detector.remove(&ready[1]);
    detector.remove(&ready[1]);
    assert_eq!((detector.ejected(), ready[1].gate()), (0, Gate::Open));
    calls(&ready[1], 5, 0, now);
    assert!(detector.examine(&ready[1], now).is_empty());
    calls(&ready[2], 5, 0, now);
    assert_eq!(causes(&detector.tick(now)), [(3, EjectionCause::ConsecutiveFailures(5))]);
    assert_eq!(detector.ejected(), 1);
    detector.tick(now + 30 * SECOND);
    assert_eq!(detector.ejected(), 0);
}

#[test]
fn settings_change_while_endpoints_are_ejected() {
    let now = Instant::now();
    let ready = open(4, now);
    let mut settings = OutlierSettings::default();
    settings.max_ejection_percent = 100;
    let mut detector = detector(&settings, &ready, now);
    for endpoint in &ready[..3] {
        calls(endpoint, 5, 0, now);
    }
    assert_eq!(causes(&detector.tick(now)).len(), 3);
    assert!(detector.in_panic(), "one of four is left");
    // An ejection lasts for the time that it was given; an interval that is shorter begins at once.
    settings.interval = SECOND;
    settings.panic_threshold = 0;
    detector.set_settings(settings.clone(), now);
    assert_eq!(detector.next_wake(), now + SECOND);
    assert!(matches!(detector.tick(now + SECOND)[..], [OutlierEvent::PanicEnded]));
    assert_eq!((detector.ejected(), ready[0].gate()), (3, Gate::Ejected));
    let events = detector.readmit_all();
    assert_eq!(events.iter().filter(|event| matches!(event, OutlierEvent::Readmitted { .. })).count(), 3);
    assert!(ready.iter().all(|endpoint| endpoint.gate() == Gate::Open) && detector.ejected() == 0);
}
