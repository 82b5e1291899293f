//! What the demo ends with.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::board::Cast;
use super::script::Action;
use super::tally::Tally;
use crate::output::{Output, Tone, cell};

/// What was done to the fleet, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    #[serde(rename = "event")]
    pub(super) action: Action,
    /// The address of the server.
    pub(super) instance: String,
    /// When, since the first call.
    pub(super) at_ms: u64,
    pub(super) effect: Effect,
    /// How long after; `null` when it was not seen.
    pub(super) effect_after_ms: Option<f64>,
}

/// What an event leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Effect {
    #[serde(rename = "out of the picker")]
    OutOfThePicker,
    #[serde(rename = "key expired in etcd")]
    KeyExpired,
    #[serde(rename = "last call served")]
    LastCall,
    #[serde(rename = "process ended")]
    Ended,
    #[serde(rename = "first call served")]
    FirstCall,
}

/// The whole of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    service: String,
    duration_ms: u64,
    calls: u64,
    failed_calls: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
    /// By address.
    calls_by_instance: BTreeMap<String, u64>,
    events: Vec<Event>,
}

// === impl Event ===

impl Event {
    pub(super) fn new(action: Action, instance: String, at: Duration, effect: Effect) -> Self {
        Self { action, instance, at_ms: milliseconds(at), effect, effect_after_ms: None }
    }

    /// With the time of the effect, since the first call as well.
    pub(super) fn seen(mut self, at: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
        let after = at.as_secs_f64() * 1000.0 - self.at_ms as f64;
        // Tenths of a millisecond; `at_ms` is cut to whole ones.
        self.effect_after_ms = Some((after * 10.0).round().max(0.0) / 10.0);
        self
    }
}

// === impl Effect ===

impl Effect {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OutOfThePicker => "out of the picker",
            Self::KeyExpired => "key expired in etcd",
            Self::LastCall => "last call served",
            Self::Ended => "process ended",
            Self::FirstCall => "first call served",
        }
    }
}

// === impl Summary ===

impl Summary {
    pub(super) fn new(service: String, lasted: Duration, tally: Tally, mut events: Vec<Event>) -> Self {
        for event in &mut events {
            let served = tally.served.get(&event.instance);
            let seen = match event.effect {
                Effect::LastCall => served.and_then(|served| served.last),
                Effect::FirstCall => served.and_then(|served| served.first),
                _ => None,
            };
            if let Some(seen) = seen {
                *event = event.clone().seen(seen);
            }
        }
        Self {
            service,
            duration_ms: milliseconds(lasted),
            calls: tally.calls,
            failed_calls: tally.failed,
            failures: tally.failures,
            calls_by_instance: tally
                .served
                .into_iter()
                .map(|(address, served)| (address, served.calls))
                .collect(),
            events,
        }
    }

    pub(super) fn print(&self, out: &mut Output, cast: &Cast) -> io::Result<()> {
        out.line("")?;
        let others = self.calls_by_instance.keys().filter(|address| !cast.addresses().contains(address));
        let rows = cast.addresses().iter().chain(others).map(|address| {
            let calls = self.calls_by_instance.get(address).copied().unwrap_or(0);
            vec![cell(cast.name(address)), cell(address), cell(calls)]
        });
        out.table(&["SERVER", "ADDRESS", "CALLS"], &[2], rows)?;
        out.line("")?;
        let rows = self.events.iter().map(|event| {
            let after =
                event.effect_after_ms.map_or_else(|| "not seen".to_owned(), |after| format!("{after} ms"));
            vec![
                cell(format!("{:.1} s", Duration::from_millis(event.at_ms).as_secs_f64())),
                cell(event.action.as_str()),
                cell(cast.name(&event.instance)),
                cell(event.effect.as_str()),
                cell(after),
            ]
        });
        out.table(&["AT", "EVENT", "SERVER", "EFFECT", "AFTER"], &[0, 4], rows)?;
        out.line("")?;
        let seconds = Duration::from_millis(self.duration_ms).as_secs_f64();
        let tone = if self.failed_calls == 0 { Tone::Good } else { Tone::Bad };
        let verdict = out.toned(format!("{} failed", self.failed_calls), tone);
        out.line(format_args!("{} calls in {seconds:.1} s, {verdict}", self.calls))?;
        for failure in &self.failures {
            out.line(format_args!("  {}", crate::report::printable(failure)))?;
        }
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_and_first_call_are_taken_from_the_tally() {
        let at = Duration::from_millis;
        let mut tally = Tally::default();
        tally.served("a".into(), at(900));
        tally.served("a".into(), at(1250));
        let events = vec![
            Event::new(Action::Drain, "a".into(), at(1000), Effect::LastCall),
            Event::new(Action::Join, "b".into(), at(1000), Effect::FirstCall),
        ];
        let summary = Summary::new("greeter".into(), at(2000), tally, events);
        assert_eq!(summary.events[0].effect_after_ms, Some(250.0));
        assert_eq!(summary.events[1].effect_after_ms, None);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["events"][0]["effect"], "last call served");
        assert_eq!(json["calls_by_instance"]["a"], 2);
    }
}
