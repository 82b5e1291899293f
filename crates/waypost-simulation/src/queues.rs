//! Servers with queues, a client, and a clock that is not the machine's.

use crate::{Dice, Ready};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{
    EndpointState, Outcome, OutlierDetector, OutlierEvent, OutlierSettings, PickRequest, Picker, Policy,
    Started, hash_key,
};

/// What a server does with a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Conduct {
    /// Works on it, when a worker is free: 5 ms and an exponential time of 5 ms, times this.
    Works(f64),
    /// Fails it at once, after 1 ms.
    Fails,
}

/// One call that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// When it began.
    pub at: Duration,
    /// Who had it.
    pub server: usize,
    /// How long the caller waited.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
}

/// One client and its servers, from time 0 on.
pub struct Simulation {
    start: Instant,
    now: Duration,
    dice: Dice,
    ready: Ready,
    picker: Arc<dyn Picker>,
    detector: Option<(OutlierDetector, OutlierSettings)>,
    /// When each worker of each server is free.
    workers: Vec<BinaryHeap<Reverse<Duration>>>,
    /// By the time of their end.
    under_way: BTreeMap<(Duration, u64), (Started, Call)>,
    sequence: u64,
    /// How many keys calls have, under the policies that hash.
    keys: Option<u64>,
    /// The calls that have ended, in the order of their ends.
    pub ended: Vec<Call>,
    /// What the detector has said, and when.
    pub events: Vec<(Duration, OutlierEvent)>,
}

/// Of each server. With 10 ms a call that is 400 calls a second.
const WORKERS: usize = 4;

impl Simulation {
    /// `policy` in front of servers that begin idle.
    pub fn new(seed: u64, policy: &dyn Policy, ready: &Ready, start: Instant) -> Self {
        Self {
            start,
            now: Duration::ZERO,
            dice: Dice::new(seed),
            ready: ready.clone(),
            picker: policy.build(ready.clone(), None),
            detector: None,
            workers: vec![vec![Reverse(Duration::ZERO); WORKERS].into(); ready.len()],
            under_way: BTreeMap::new(),
            sequence: 0,
            keys: None,
            ended: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Each call has one of so many keys, all as often.
    pub fn with_keys(mut self, keys: u64) -> Self {
        self.keys = Some(keys);
        self
    }

    /// With an outlier detector that looks at every call.
    pub fn with_detector(mut self, settings: &OutlierSettings) -> Self {
        let mut detector = OutlierDetector::new(settings.clone(), 0, self.start);
        assert!(detector.set_endpoints(&*self.ready, self.start).is_empty());
        self.detector = Some((detector, settings.clone()));
        self
    }

    /// The one that [`with_detector`](Self::with_detector) has set.
    pub fn detector(&self) -> &OutlierDetector {
        &self.detector.as_ref().expect("a detector").0
    }

    /// Calls at random times, so many a second, until `end`. What is under way then goes on with the next run.
    pub fn run(&mut self, end: Duration, rate: f64, mut conduct: impl FnMut(usize, Duration) -> Conduct) {
        loop {
            let next = self.now + Duration::from_secs_f64(self.dice.exponential(1.0 / rate));
            if next >= end {
                break;
            }
            self.advance(next);
            self.call(&mut conduct);
        }
        self.advance(end);
    }

    /// What is under way ends.
    pub fn finish(&mut self) {
        while let Some(((last, _), _)) = self.under_way.last_key_value() {
            self.advance(*last);
        }
    }

    /// The calls that began in this stretch of time.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Call> {
        let stretch = Duration::from_secs(from)..Duration::from_secs(to);
        self.ended.iter().filter(move |call| stretch.contains(&call.at))
    }

    /// A server's share of the calls that began in this stretch of time.
    pub fn share(&self, server: usize, from: u64, to: u64) -> f64 {
        let mine = self.between(from, to).filter(|call| call.server == server).count();
        mine as f64 / self.between(from, to).count() as f64
    }

    fn call(&mut self, conduct: &mut impl FnMut(usize, Duration) -> Conduct) {
        let now = self.start + self.now;
        let dice = &self.dice;
        let hash = self.keys.map(|keys| hash_key(&(dice.roll() % keys).to_le_bytes()));
        let server =
            self.picker.pick(&PickRequest::new(now, &|| dice.roll()).with_hash(hash)).expect("there is one");
        let state: &Arc<EndpointState> = &self.ready[server];
        let (ends, failed) = match conduct(server, self.now) {
            Conduct::Fails => (self.now + Duration::from_millis(1), true),
            Conduct::Works(factor) => {
                let Reverse(free) = self.workers[server].pop().expect("there is one");
                let work = Duration::from_secs_f64(factor * (0.005 + self.dice.exponential(0.005)));
                let ends = free.max(self.now) + work;
                self.workers[server].push(Reverse(ends));
                (ends, false)
            }
        };
        self.sequence += 1;
        let call = Call { at: self.now, server, took: ends.saturating_sub(self.now), failed };
        self.under_way.insert((ends, self.sequence), (state.started(now), call));
    }

    /// What happens until `to`: calls end, and the detector wakes.
    fn advance(&mut self, to: Duration) {
        loop {
            let ends = self.under_way.first_key_value().map(|((ends, _), _)| *ends);
            let wakes =
                self.detector.as_ref().map(|(detector, _)| detector.next_wake().duration_since(self.start));
            match (ends, wakes) {
                (Some(ends), wakes) if ends <= to && wakes.is_none_or(|wakes| ends < wakes) => {
                    self.end_first();
                }
                (_, Some(wakes)) if wakes <= to => {
                    if let Some((detector, _)) = &mut self.detector {
                        let events = detector.tick(self.start + wakes);
                        self.events.extend(events.into_iter().map(|event| (wakes, event)));
                    }
                }
                _ => break,
            }
        }
        self.now = to;
    }

    fn end_first(&mut self) {
        let ((ends, _), (started, call)) = self.under_way.pop_first().expect("there is one");
        let outcome = if call.failed { Outcome::Failed } else { Outcome::Ok };
        started.finished(self.start + ends, outcome);
        self.ended.push(call);
        if let Some((detector, settings)) = &mut self.detector
            && call.failed
            && settings.suspects(&self.ready[call.server])
        {
            let events = detector.examine(&self.ready[call.server], self.start + ends);
            self.events.extend(events.into_iter().map(|event| (ends, event)));
        }
    }
}

/// The latency that all but so many of a hundred calls keep below.
pub fn percentile<'a>(calls: impl Iterator<Item = &'a Call>, percent: usize) -> Duration {
    let mut times: Vec<_> = calls.map(|call| call.took).collect();
    let at = times.len() * percent / 100;
    *times.select_nth_unstable(at).1
}
