//! The document as it is written, and what it comes to.

use super::balancing::{self, Entry};
use super::method::{HedgingRule, MethodConfig, Resend, RetryRule};
use super::scalar::{Codes, Positive, Span, Whole};
use super::{InvalidServiceConfig, LoadBalancing, Methods, ServiceConfig, Throttling};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    load_balancing_config: Option<Vec<Entry>>,
    load_balancing_policy: Option<String>,
    method_config: Option<Vec<MethodEntry>>,
    retry_throttling: Option<ThrottlingEntry>,
    health_check_config: Option<HealthEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodEntry {
    name: Option<Vec<NameEntry>>,
    timeout: Option<Span>,
    wait_for_ready: Option<bool>,
    max_request_message_bytes: Option<Whole>,
    max_response_message_bytes: Option<Whole>,
    retry_policy: Option<RetryEntry>,
    hedging_policy: Option<HedgingEntry>,
}

#[derive(Debug, Clone, Deserialize)]
struct NameEntry {
    service: Option<String>,
    method: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryEntry {
    max_attempts: Option<Whole>,
    initial_backoff: Option<Span>,
    max_backoff: Option<Span>,
    backoff_multiplier: Option<Positive>,
    retryable_status_codes: Option<Codes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HedgingEntry {
    max_attempts: Option<Whole>,
    hedging_delay: Option<Span>,
    non_fatal_status_codes: Option<Codes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThrottlingEntry {
    max_tokens: Option<Whole>,
    token_ratio: Option<Positive>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthEntry {
    service_name: Option<String>,
}

type Result<T> = std::result::Result<T, InvalidServiceConfig>;

/// gRFC A6: what asks for more gets this many.
const MOST_ATTEMPTS: u32 = 5;
/// gRFC A6: no bucket is larger.
const MOST_TOKENS: u32 = 1000;

// === impl Document ===

impl Document {
    pub(super) fn read(json: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let document = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| InvalidServiceConfig::of("", error))?;
        reader.end().map_err(|error| InvalidServiceConfig::at("", error.to_string()))?;
        Ok(document)
    }

    pub(super) fn resolve(self) -> Result<ServiceConfig> {
        Ok(ServiceConfig {
            load_balancing: self.load_balancing()?,
            retry_throttling: self.retry_throttling.map(ThrottlingEntry::resolve).transpose()?,
            health_check: self.health_check_config.map(|entry| entry.service_name.unwrap_or_default()),
            methods: methods(self.method_config.unwrap_or_default())?,
        })
    }

    fn load_balancing(&self) -> Result<Option<LoadBalancing>> {
        match (self.load_balancing_config.as_deref(), self.load_balancing_policy.as_deref()) {
            (None | Some([]), None | Some("")) => Ok(None),
            (None | Some([]), Some(name)) => {
                let entry: Entry = Map::from_iter([(name.to_lowercase(), Value::Null)]);
                balancing::choose(&[entry], "loadBalancingPolicy")
            }
            (Some(list), _) => balancing::choose(list, "loadBalancingConfig"),
        }
    }
}

fn methods(entries: Vec<MethodEntry>) -> Result<Methods> {
    let mut by_path: HashMap<String, Arc<MethodConfig>> = HashMap::new();
    let mut default = None;
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("methodConfig[{index}]");
        let names = entry.name.as_deref().unwrap_or_default().to_vec();
        let method = Arc::new(entry.resolve(&path)?);
        for (index, NameEntry { service, method: name }) in names.iter().enumerate() {
            let place = format!("{path}.name[{index}]");
            let service = service.as_deref().unwrap_or_default();
            let name = name.as_deref().unwrap_or_default();
            let twice = match (service, name) {
                ("", "") => default.replace(Arc::clone(&method)).is_some(),
                ("", _) => {
                    return Err(InvalidServiceConfig::at(place, "names a method without its service"));
                }
                (service, name) => {
                    by_path.insert(format!("/{service}/{name}"), Arc::clone(&method)).is_some()
                }
            };
            if twice {
                return Err(InvalidServiceConfig::at(place, "names what an entry before it has named"));
            }
        }
    }
    Ok(Methods { by_path, default })
}

impl MethodEntry {
    fn resolve(self, path: &str) -> Result<MethodConfig> {
        let resend = match (self.retry_policy, self.hedging_policy) {
            (None, None) => None,
            (Some(retry), None) => Some(Resend::Retry(retry.resolve(&format!("{path}.retryPolicy"))?)),
            (None, Some(hedging)) => Some(Resend::Hedge(hedging.resolve(&format!("{path}.hedgingPolicy"))?)),
            (Some(_), Some(_)) => {
                return Err(InvalidServiceConfig::at(
                    path,
                    "has both a retryPolicy and a hedgingPolicy: name one",
                ));
            }
        };
        Ok(MethodConfig {
            timeout: self.timeout.map(|Span(timeout)| timeout),
            wait_for_ready: self.wait_for_ready,
            max_request_message_bytes: self.max_request_message_bytes.map(|Whole(bytes)| bytes),
            max_response_message_bytes: self.max_response_message_bytes.map(|Whole(bytes)| bytes),
            resend,
        })
    }
}

impl RetryEntry {
    fn resolve(self, path: &str) -> Result<RetryRule> {
        let codes = required(self.retryable_status_codes, path, "retryableStatusCodes")?.0;
        if codes.is_empty() {
            return Err(InvalidServiceConfig::at(format!("{path}.retryableStatusCodes"), "must name a code"));
        }
        let backoff = |value: Option<Span>, name: &str| {
            let Span(backoff) = required(value, path, name)?;
            let problem = || InvalidServiceConfig::at(format!("{path}.{name}"), "must be more than 0");
            Some(backoff).filter(|backoff| !backoff.is_zero()).ok_or_else(problem)
        };
        Ok(RetryRule {
            max_attempts: attempts(self.max_attempts, path)?,
            initial_backoff: backoff(self.initial_backoff, "initialBackoff")?,
            max_backoff: backoff(self.max_backoff, "maxBackoff")?,
            backoff_multiplier: required(self.backoff_multiplier, path, "backoffMultiplier")?.0,
            codes,
        })
    }
}

impl HedgingEntry {
    fn resolve(self, path: &str) -> Result<HedgingRule> {
        Ok(HedgingRule {
            max_attempts: attempts(self.max_attempts, path)?,
            delay: self.hedging_delay.map(|Span(delay)| delay).unwrap_or_default(),
            non_fatal: self.non_fatal_status_codes.map(|Codes(codes)| codes).unwrap_or_default(),
        })
    }
}

impl ThrottlingEntry {
    fn resolve(self) -> Result<Throttling> {
        let path = "retryThrottling";
        let Whole(max_tokens) = required(self.max_tokens, path, "maxTokens")?;
        if !(1..=MOST_TOKENS).contains(&max_tokens) {
            let problem = format!("must be from 1 to {MOST_TOKENS}, is {max_tokens}");
            return Err(InvalidServiceConfig::at(format!("{path}.maxTokens"), problem));
        }
        let Positive(ratio) = required(self.token_ratio, path, "tokenRatio")?;
        // A6: digits after the third do not count.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a million; a ratio above the bucket is no more than it"
        )]
        let thousandths = (ratio * 1000.0 + 1e-6).min(f64::from(MOST_TOKENS) * 1000.0) as u32;
        if thousandths == 0 {
            let problem = format!("must be at least 0.001, is {ratio}");
            return Err(InvalidServiceConfig::at(format!("{path}.tokenRatio"), problem));
        }
        Ok(Throttling { max_tokens, token_ratio_thousandths: thousandths })
    }
}

fn attempts(given: Option<Whole>, path: &str) -> Result<u32> {
    match required(given, path, "maxAttempts")? {
        Whole(attempts @ (0 | 1)) => Err(InvalidServiceConfig::at(
            format!("{path}.maxAttempts"),
            format!("must be at least 2, the first attempt included; is {attempts}"),
        )),
        Whole(attempts) => Ok(attempts.min(MOST_ATTEMPTS)),
    }
}

fn required<T>(value: Option<T>, path: &str, name: &str) -> Result<T> {
    value.ok_or_else(|| InvalidServiceConfig::at(format!("{path}.{name}"), "is missing"))
}
