//! What holds for the calls of a method.

use crate::code::CodeSet;
use std::time::Duration;

/// What holds for the calls of a method.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct MethodConfig {
    /// How long a call may take, with all its attempts.
    pub timeout: Option<Duration>,
    /// Whether calls wait for a ready endpoint rather than fail.
    pub wait_for_ready: Option<bool>,
    /// The longest message of a request, in bytes as it is sent. The lower of this and the
    /// [channel's](crate::ChannelBuilder::max_request_message_bytes) holds.
    pub max_request_message_bytes: Option<u32>,
    /// The longest message of a response, in bytes as it is sent. The lower of this and the
    /// [channel's](crate::ChannelBuilder::max_response_message_bytes) holds.
    pub max_response_message_bytes: Option<u32>,
    /// Whether, and how, a call is sent more than once.
    pub resend: Option<Resend>,
}

/// How a call is sent more than once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Resend {
    /// Again, after it has failed.
    Retry(RetryRule),
    /// To several endpoints, one after the other, and the first answer counts.
    Hedge(HedgingRule),
}

/// `retryPolicy` of gRFC A6: a call that fails is sent again, elsewhere, after a wait.
///
/// It holds for the calls of its methods whether or not they are marked [`Idempotent`](crate::Idempotent): whoever writes a policy
/// for a method says that it may be processed twice. A call is committed to an attempt once that has answered with headers that
/// are not an error; of calls that are marked as well, only with the complete response.
///
/// The wait before the nth retry is `initial_backoff * backoff_multiplier^(n-1)`, at most `max_backoff`, times a random number between
/// 0.8 and 1.2. A server may name another by `grpc-retry-pushback-ms`, or forbid retries by a negative one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryRule {
    /// Attempts, the first included: 2 to 5; what is more in the document counts as 5.
    pub max_attempts: u32,
    /// Before the first retry.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// How much longer each further wait is.
    pub backoff_multiplier: f64,
    /// What is worth a retry.
    pub codes: CodeSet,
}

/// `hedgingPolicy` of gRFC A6: a call that has no answer yet is sent to further endpoints as well, and the first answer counts.
///
/// For calls that may be processed several times. Attempts that are no longer needed are cancelled. Of a stream of requests all attempts
/// get all messages, while what was sent can be [kept](crate::RetryPolicy::request_limit); the one that is the first to get more goes on alone.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HedgingRule {
    /// Attempts, the first included: 2 to 5; what is more in the document counts as 5.
    pub max_attempts: u32,
    /// How long after one attempt the next is sent; zero sends them all at once.
    pub delay: Duration,
    /// Failures that do not end the call while other attempts may still answer: the next one is then sent at once.
    pub non_fatal: CodeSet,
}
