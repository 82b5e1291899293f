//! gRPC's service config: what a client is told of a service by whoever runs it, as a JSON document.

mod balancing;
mod document;
mod method;
mod scalar;

pub use balancing::LoadBalancing;
pub use method::{HedgingRule, MethodConfig, Resend, RetryRule};

use document::Document;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

/// How a service wants to be called: policy, and by method timeouts, retries and hedging.
///
/// Read from the JSON form of gRPC's [`ServiceConfig`]. Of it are taken:
///
/// | field | |
/// |---|---|
/// | `loadBalancingConfig` | the first policy of the list that is known here, see [`LoadBalancing`]; `loadBalancingPolicy` where there is no list |
/// | `methodConfig` | `name`, `timeout`, `waitForReady`, `maxRequestMessageBytes`, `maxResponseMessageBytes`, `retryPolicy`, `hedgingPolicy`, see [`MethodConfig`] |
/// | `retryThrottling` | `maxTokens`, `tokenRatio`: replaces the budget of the channel's [`RetryPolicy`](crate::RetryPolicy) |
/// | `healthCheckConfig` | `serviceName`: turns [health checks](crate::ChannelBuilder::health_check) on, under that name |
///
/// Other fields are ignored, as gRPC ignores what it does not know. A value that gRPC does not allow makes the whole document
/// invalid.
///
/// What the document does not speak of is as the [builder](crate::ChannelBuilder) has it. A `timeout` is a limit beside the
/// caller's and the channel's: the shortest holds; so it is with the lengths of messages. `waitForReady` yields to what the call says.
///
/// ```
/// use std::time::Duration;
/// use waypost_channel::{Resend, ServiceConfig};
///
/// let config: ServiceConfig = r#"{
///     "loadBalancingConfig": [{"least_request_experimental": {}}, {"round_robin": {}}],
///     "methodConfig": [{
///         "name": [{"service": "helloworld.Greeter"}],
///         "timeout": "1.5s",
///         "retryPolicy": {
///             "maxAttempts": 4,
///             "initialBackoff": "0.05s",
///             "maxBackoff": "1s",
///             "backoffMultiplier": 2,
///             "retryableStatusCodes": ["UNAVAILABLE"]
///         }
///     }]
/// }"#.parse()?;
/// let method = config.method("/helloworld.Greeter/SayHello").expect("it is of that service");
/// assert_eq!(method.timeout, Some(Duration::from_millis(1500)));
/// assert!(matches!(&method.resend, Some(Resend::Retry(rule)) if rule.max_attempts == 4));
///
/// let error = r#"{"methodConfig": [{"name": [{}], "timeout": "soon"}]}"#.parse::<ServiceConfig>().unwrap_err();
/// assert!(error.to_string().contains("methodConfig[0].timeout"));
/// # Ok::<(), waypost_channel::InvalidServiceConfig>(())
/// ```
///
/// [`ServiceConfig`]: https://github.com/grpc/grpc-proto/blob/master/grpc/service_config/service_config.proto
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// How calls are spread, if the document says so.
    pub load_balancing: Option<LoadBalancing>,
    /// The budget of retries and hedges.
    pub retry_throttling: Option<Throttling>,
    /// Under which name the health of endpoints is asked for, if it is.
    pub health_check: Option<String>,
    methods: Methods,
}

/// The token bucket of gRFC A6: a failure takes a token, a success puts a part of one back, and while half of the tokens or fewer
/// are left nothing is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Throttling {
    /// Tokens of a full bucket, which it begins as: 1 to 1,000.
    pub max_tokens: u32,
    /// Tokens for a success, in thousandths.
    pub token_ratio_thousandths: u32,
}

/// A document is no service config, or says something that gRPC does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service config: {}{problem}", self.place())]
#[non_exhaustive]
pub struct InvalidServiceConfig {
    /// Where in the document, as `methodConfig[0].retryPolicy.maxAttempts`; empty for the document as a whole.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

/// By path of the method, by path of the service, and for all.
#[derive(Debug, Clone, Default)]
struct Methods {
    /// `/package.Service/Method`, and `/package.Service/` for the others of the service.
    by_path: HashMap<String, Arc<MethodConfig>>,
    default: Option<Arc<MethodConfig>>,
}

// === impl ServiceConfig ===

impl ServiceConfig {
    /// What holds for the method with this path, `/package.Service/Method`: what names it, or else its service, or else all.
    pub fn method(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        self.methods.find(path)
    }
}

impl FromStr for ServiceConfig {
    type Err = InvalidServiceConfig;

    fn from_str(json: &str) -> Result<Self, InvalidServiceConfig> {
        Document::read(json)?.resolve()
    }
}

// === impl Methods ===

impl Methods {
    fn find(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        if self.by_path.is_empty() {
            return self.default.as_ref();
        }
        let service = || path.rfind('/').map_or(path, |end| &path[..=end]);
        self.by_path.get(path).or_else(|| self.by_path.get(service())).or(self.default.as_ref())
    }
}

// === impl InvalidServiceConfig ===

impl InvalidServiceConfig {
    pub(crate) fn at(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    /// An error that names its own place, below `prefix`.
    fn of(prefix: &str, error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = match (prefix, error.path().to_string()) {
            (prefix, path) if path == "." => prefix.to_owned(),
            ("", path) => path,
            (prefix, path) => format!("{prefix}.{path}"),
        };
        Self::at(path, error.into_inner().to_string())
    }

    fn place(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) }
    }
}

#[cfg(test)]
mod tests;
