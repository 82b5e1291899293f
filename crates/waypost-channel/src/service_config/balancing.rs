//! `loadBalancingConfig`: the first policy of a list that is known here.

use super::InvalidServiceConfig;
use super::scalar::{Span, Whole};
use crate::policy::Policy;
use http::HeaderName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use waypost_balance::{
    FailurePercentage, LeastRequest, Maglev, OutlierSettings, PeakEwma, RingHash, SuccessRate,
};

/// How calls are spread, as a service config says.
///
/// | in the document | here |
/// |---|---|
/// | `round_robin`, `random` | the same |
/// | `weighted_round_robin` | by the weights that instances are registered with; gRPC's fields for load reports are ignored |
/// | `least_request_experimental`, `least_request` | the least loaded of `choiceCount`: 2 to 10, what is more counts as 10 |
/// | `ring_hash_experimental`, `ring_hash` | with `requestHashHeader`; with `minRingSize` or `maxRingSize` gRPC's ring, otherwise one whose size goes with the fleet's ([`RingHash`]), of `points` for each endpoint |
/// | `maglev` | `tableSize`, `requestHashHeader` |
/// | `peak_ewma` | `decay`, `failurePenalty` |
/// | `outlier_detection_experimental` | gRFC A50, with `childPolicy`. Ours besides: `consecutiveFailures`, `panicThreshold` |
/// | `pick_first` | no choice: the channel's own policy |
///
/// `pick_first` is what gRPC does where nobody chose, with one connection; a channel here is connected to all endpoints, and so
/// keeps the policy that it was built with.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadBalancing {
    /// The policy; `None` for the channel's own.
    pub policy: Option<Policy>,
    /// When endpoints are set aside; `None` for the channel's own settings.
    pub outliers: Option<OutlierSettings>,
}

/// A policy's name, and its options.
pub(super) type Entry = Map<String, Value>;

type Result<T> = std::result::Result<T, InvalidServiceConfig>;

const KNOWN: &str = "round_robin, random, weighted_round_robin, least_request_experimental, peak_ewma, \
                     ring_hash_experimental, maglev, outlier_detection_experimental and pick_first";
/// gRFC A42: no ring is larger.
const LARGEST_RING: u32 = 8 << 20;
/// gRFC A42: what a client makes of a larger size, unless it was told otherwise.
const RING_CAP: u32 = 4_096;
/// gRFC A42, where only the other one is given.
const LEAST_RING: u32 = 1_024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeastRequestEntry {
    choice_count: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeakEwmaEntry {
    decay: Option<Span>,
    failure_penalty: Option<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashEntry {
    min_ring_size: Option<Whole>,
    max_ring_size: Option<Whole>,
    points: Option<Whole>,
    table_size: Option<Whole>,
    request_hash_header: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutlierEntry {
    interval: Option<Span>,
    base_ejection_time: Option<Span>,
    max_ejection_time: Option<Span>,
    max_ejection_percent: Option<Whole>,
    success_rate_ejection: Option<SuccessRateEntry>,
    failure_percentage_ejection: Option<FailurePercentageEntry>,
    child_policy: Option<Vec<Entry>>,
    consecutive_failures: Option<Whole>,
    panic_threshold: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SuccessRateEntry {
    stdev_factor: Option<Whole>,
    enforcement_percentage: Option<Whole>,
    minimum_hosts: Option<Whole>,
    request_volume: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailurePercentageEntry {
    threshold: Option<Whole>,
    enforcement_percentage: Option<Whole>,
    minimum_hosts: Option<Whole>,
    request_volume: Option<Whole>,
}

/// The first of the list that is known; `None` for an empty list. Those after it are not looked at, as in gRPC.
pub(super) fn choose(list: &[Entry], path: &str) -> Result<Option<LoadBalancing>> {
    let mut unknown = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let place = format!("{path}[{index}]");
        let mut options = entry.iter();
        let (Some((name, value)), None) = (options.next(), options.next()) else {
            let problem = format!("must name one policy, names {}", entry.len());
            return Err(InvalidServiceConfig::at(place, problem));
        };
        match known(name, value, &format!("{place}.{name}"))? {
            Some(chosen) => return Ok(Some(chosen)),
            None => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(None);
    }
    let problem = format!("none of these policies is known: {}; known are {KNOWN}", unknown.join(", "));
    Err(InvalidServiceConfig::at(path, problem))
}

fn known(name: &str, value: &Value, path: &str) -> Result<Option<LoadBalancing>> {
    let policy = match name {
        "pick_first" => return Ok(Some(LoadBalancing::default())),
        "outlier_detection_experimental" | "outlier_detection" => {
            return read::<OutlierEntry>(value, path)?.resolve(path).map(Some);
        }
        "round_robin" => Policy::round_robin(),
        "random" => Policy::random(),
        "weighted_round_robin" => Policy::weighted_round_robin(),
        "least_request_experimental" | "least_request" => {
            let entry: LeastRequestEntry = read(value, path)?;
            if entry.choice_count.is_some_and(|Whole(count)| count < 2) {
                return Err(InvalidServiceConfig::at(format!("{path}.choiceCount"), "must be at least 2"));
            }
            let choices = entry.choice_count.and_then(|Whole(count)| usize::try_from(count).ok());
            let rule = LeastRequest::default();
            choices.map(|choices| rule.clone().with_choices(choices)).unwrap_or(rule).into()
        }
        "peak_ewma" => {
            let entry: PeakEwmaEntry = read(value, path)?;
            let mut rule = PeakEwma::default();
            if let Some(Span(decay)) = entry.decay {
                rule = rule.with_decay(decay);
            }
            if let Some(Span(penalty)) = entry.failure_penalty {
                rule = rule.with_failure_penalty(penalty);
            }
            rule.into()
        }
        "ring_hash_experimental" | "ring_hash" => {
            let entry: HashEntry = read(value, path)?;
            Policy::from(entry.ring(path)?).hash_on_header(entry.header(path)?)
        }
        "maglev" => {
            let entry: HashEntry = read(value, path)?;
            let size = entry.table_size.and_then(|Whole(size)| usize::try_from(size).ok());
            let rule = size.map(|size| Maglev::default().with_table_size(size)).unwrap_or_default();
            Policy::from(rule).hash_on_header(entry.header(path)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(LoadBalancing { policy: Some(policy), outliers: None }))
}

/// Options may be left out.
fn read<T: DeserializeOwned>(value: &Value, path: &str) -> Result<T> {
    let empty = Value::Object(Map::new());
    let value = if value.is_null() { &empty } else { value };
    serde_path_to_error::deserialize(value).map_err(|error| InvalidServiceConfig::of(path, error))
}

impl HashEntry {
    fn ring(&self, path: &str) -> Result<RingHash> {
        let ring = RingHash::default();
        let sizes = [("minRingSize", self.min_ring_size), ("maxRingSize", self.max_ring_size)];
        for (name, size) in sizes {
            if let Some(Whole(size)) = size.filter(|Whole(size)| !(1..=LARGEST_RING).contains(size)) {
                let problem = format!("must be from 1 to {LARGEST_RING}, is {size}");
                return Err(InvalidServiceConfig::at(format!("{path}.{name}"), problem));
            }
        }
        let named = |name: &str| format!("{path}.{name}");
        let wrong = |name: &str, problem: &str| Err(InvalidServiceConfig::at(named(name), problem));
        match (self.points, sizes.map(|(_, size)| size.map(|Whole(size)| size))) {
            (None, [None, None]) => Ok(ring),
            (Some(Whole(points)), [None, None]) => Ok(ring.with_points(points)),
            (Some(_), _) => wrong("points", "the size of the ring is given as well: name one of both"),
            (None, [Some(least), Some(most)]) if least > most => {
                wrong("minRingSize", "must not be above maxRingSize")
            }
            (None, [least, most]) => {
                let most = most.unwrap_or(RING_CAP).min(RING_CAP);
                Ok(ring.with_ring_size(least.unwrap_or(LEAST_RING).min(most), most))
            }
        }
    }

    fn header(&self, path: &str) -> Result<Option<HeaderName>> {
        let parse = |name: &String| {
            let parsed = HeaderName::try_from(name.to_lowercase()).ok().filter(|_| !name.ends_with("-bin"));
            parsed.ok_or_else(|| {
                let problem = format!("{name:?} is no name of a header with a text");
                InvalidServiceConfig::at(format!("{path}.requestHashHeader"), problem)
            })
        };
        self.request_hash_header.as_ref().filter(|name| !name.is_empty()).map(parse).transpose()
    }
}

impl OutlierEntry {
    fn resolve(self, path: &str) -> Result<LoadBalancing> {
        let mut settings = OutlierSettings::default();
        let set = |target: &mut Duration, value: Option<Span>| {
            if let Some(Span(value)) = value {
                *target = value;
            }
        };
        set(&mut settings.interval, self.interval);
        set(&mut settings.base_ejection_time, self.base_ejection_time);
        set(&mut settings.max_ejection_time, self.max_ejection_time);
        let percentage = |value, default, name: &str| percent(value, default, &format!("{path}.{name}"));
        settings.max_ejection_percent = percentage(self.max_ejection_percent, 10, "maxEjectionPercent")?;
        settings.panic_threshold =
            percentage(self.panic_threshold, settings.panic_threshold, "panicThreshold")?;
        settings.consecutive_failures =
            self.consecutive_failures.map(|Whole(failures)| failures).filter(|failures| *failures > 0);
        let below = |name: &str| format!("{path}.{name}");
        settings.success_rate = self
            .success_rate_ejection
            .map(|entry| entry.resolve(&below("successRateEjection")))
            .transpose()?
            .flatten();
        settings.failure_percentage = self
            .failure_percentage_ejection
            .map(|entry| entry.resolve(&below("failurePercentageEjection")))
            .transpose()?
            .flatten();
        let child = choose(&self.child_policy.unwrap_or_default(), &below("childPolicy"))?;
        let policy = child.unwrap_or_default().policy;
        Ok(LoadBalancing { policy, outliers: Some(settings) })
    }
}

impl SuccessRateEntry {
    fn resolve(self, path: &str) -> Result<Option<SuccessRate>> {
        let mut rule = SuccessRate::default();
        if let Some(Whole(thousandths)) = self.stdev_factor {
            rule.stdev_factor = f64::from(thousandths) / 1000.0;
        }
        number(&mut rule.minimum_hosts, self.minimum_hosts);
        number(&mut rule.request_volume, self.request_volume);
        rule.enforcement_percentage = enforced(self.enforcement_percentage, path)?;
        Ok(Some(rule).filter(|rule| rule.enforcement_percentage > 0))
    }
}

impl FailurePercentageEntry {
    fn resolve(self, path: &str) -> Result<Option<FailurePercentage>> {
        let mut rule = FailurePercentage::default();
        rule.threshold = percent(self.threshold, rule.threshold, &format!("{path}.threshold"))?;
        number(&mut rule.minimum_hosts, self.minimum_hosts);
        number(&mut rule.request_volume, self.request_volume);
        rule.enforcement_percentage = enforced(self.enforcement_percentage, path)?;
        Ok(Some(rule).filter(|rule| rule.enforcement_percentage > 0))
    }
}

fn number<T: TryFrom<u32>>(target: &mut T, value: Option<Whole>) {
    if let Some(value) = value.and_then(|Whole(value)| T::try_from(value).ok()) {
        *target = value;
    }
}

fn enforced(value: Option<Whole>, path: &str) -> Result<u8> {
    percent(value, 100, &format!("{path}.enforcementPercentage"))
}

fn percent(value: Option<Whole>, default: u8, path: &str) -> Result<u8> {
    let Some(Whole(value)) = value else { return Ok(default) };
    let within = u8::try_from(value).ok().filter(|percent| *percent <= 100);
    within.ok_or_else(|| InvalidServiceConfig::at(path, format!("must be from 0 to 100, is {value}")))
}
