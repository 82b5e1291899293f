//! `waypost call`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use waypost::channel::{Channel, ChannelStats, Connector as _, EndpointStatus, Policy, TcpConnector};
use waypost::model::{Instance, ServiceName, Snapshot};

use crate::args::{Environment, LayoutArgs, Pair, ServiceTlsArgs, UsageError, parse_duration, parse_pair};
use crate::call::{self, Extras, Followed, MethodName, Plan, Target, parse_method};
use crate::exit::Exit;
use crate::report;
use crate::session::Session;

/// Call a service as its clients do, and tell who served, how fast, and what failed.
///
/// Calls go through the channel: every instance is connected to, the policy picks one for each call, and the service config in etcd
/// holds (waypost/service-config/SERVICE), as for clients that follow it. Without --method the
/// health service is called, which most servers have; with it, the server's reflection says what the method takes. SIGINT ends
/// it early and tells what there is. The exit code is 1 if a call has failed, and 3 if nothing is registered.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost call greeter\n  waypost call greeter --rate 200 --duration 30s --policy least_request\n  \
    waypost call greeter --method helloworld.Greeter/SayHello --data '{\"name\": \"World\"}'\n  \
    waypost call greeter --policy maglev --hash-key user-42 --output json\n  \
    waypost call greeter --service-cacert ca.pem --service-tls"
)]
pub(crate) struct CallArgs {
    /// The service, as `waypost ls` shows it.
    service: ServiceName,
    /// How calls are spread: round_robin, random, weighted_round_robin, least_request, peak_ewma, ring_hash or maglev. Counts more
    /// than the service config. [default: what that says, or round_robin]
    #[arg(long)]
    policy: Option<Policy>,
    /// Calls per second.
    #[arg(long, default_value_t = 10.0, value_parser = parse_rate)]
    rate: f64,
    /// How long to call.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Calls that may be under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// The method, as package.Service/Method. Default: grpc.health.v1.Health/Check.
    #[arg(long, value_parser = parse_method)]
    method: Option<MethodName>,
    /// The message, in proto's JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "method")]
    data: String,
    /// How long a call may take.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    deadline: Duration,
    /// The zone that calls should stay in [env: WAYPOST_ZONE]
    #[arg(long)]
    zone: Option<String>,
    /// What ring_hash and maglev pick by: calls with the same key go to the same instance.
    #[arg(long, value_name = "KEY")]
    hash_key: Option<String>,
    /// A header to send; with --hash-on that of it, what ring_hash and maglev pick by.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    headers: Vec<Pair>,
    /// The header that ring_hash and maglev pick by.
    #[arg(long, value_name = "NAME")]
    hash_on: Option<String>,
    /// The calls may be made twice: those that fail are tried again elsewhere.
    #[arg(long)]
    idempotent: bool,
    /// Do not follow the service config in etcd.
    #[arg(long)]
    no_service_config: bool,
    #[command(flatten)]
    tls: ServiceTlsArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// More than 0, and no more than a million.
fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    let within = rate > 0.0 && rate <= 1_000_000.0;
    if within { Ok(rate) } else { Err("must be more than 0 and at most 1000000".to_owned()) }
}

/// Who cannot be called gets no calls; the operator is told once, rather than by every call that finds nobody else.
fn warn_of_tls(snapshot: &Snapshot, connector: &TcpConnector) {
    let refusal = |instance: &Arc<Instance>| {
        instance.endpoints.iter().map(|endpoint| connector.refuses(endpoint)).min()?
    };
    let refusals: Vec<_> = snapshot.instances().filter_map(refusal).collect();
    if let Some(first) = refusals.first() {
        let (count, all) = (refusals.len(), snapshot.len());
        report::warn(&format!(
            "{count} of {all} instances cannot be called: {first}; TLS to them wants --service-cacert"
        ));
    }
}

// === impl CallArgs ===

impl CallArgs {
    pub(crate) async fn run(self, session: Session) -> anyhow::Result<Exit> {
        let layouts = session.layouts(self.layout.clone())?;
        let headers = self.headers()?;
        let policy = self.policy()?;
        let environment = Environment::of_process();
        let connector = self.tls.clone().connector(environment)?;
        let (snapshot, subscription) = session.discover(&layouts, Some(self.service.clone())).await?;
        if snapshot.is_empty() {
            report::warn(&format!(
                "service {}: nothing is registered ({})",
                self.service,
                subscription.describe()
            ));
            return Ok(Exit::NothingFound);
        }
        warn_of_tls(&snapshot, &connector);
        let mut builder = Channel::builder(subscription).connector(connector);
        let followed = (!self.no_service_config)
            .then(|| Followed::new(session.client.clone(), self.service.clone(), policy.is_some()));
        let config = match &followed {
            Some(followed) => followed.current().await.context("the service config")?,
            None => None,
        };
        let configured = config.is_some();
        if let Some(policy) = policy {
            builder = builder.policy(policy);
        }
        if let Some(zone) = self.zone.or_else(|| environment.own("ZONE")) {
            builder = builder.zone(zone);
        }
        if let Some(followed) = &followed {
            builder = builder.service_config_updates(followed.updates());
        }
        let channel = builder.build();
        // Those that follow come as they come; this one holds from the first call on.
        channel.set_service_config(config);
        // What keeps all of them from being ready is what each call is told: that is the answer, not an error.
        let ready = channel.ready().await;
        // Otherwise the first calls would all go to those that are quickest to connect to. Whoever takes longer is not waited for.
        let tried = |stats: &ChannelStats| {
            stats.endpoints.iter().all(|endpoint| endpoint.state != EndpointStatus::Connecting)
        };
        let _ = tokio::time::timeout(self.deadline, channel.wait_for(tried)).await;
        let target = match &self.method {
            None => Target::health(),
            Some(method) => {
                ready.with_context(|| format!("service {}", self.service))?;
                let described = Target::reflected(&channel, method, &self.data);
                tokio::time::timeout(self.deadline, described)
                    .await
                    .with_context(|| format!("no description of the method within {:?}", self.deadline))??
            }
        };
        let extras =
            Extras { deadline: self.deadline, headers, hash_key: self.hash_key, idempotent: self.idempotent };
        let plan = Plan {
            service: self.service,
            target,
            extras,
            rate: self.rate,
            duration: self.duration,
            callers: self.callers,
            configured,
        };
        call::run(plan, channel, session.out).await
    }

    /// What is asked for on the command line.
    fn policy(&self) -> Result<Option<Policy>, UsageError> {
        let Some(name) = &self.hash_on else { return Ok(self.policy.clone()) };
        let header = http::HeaderName::try_from(name.to_lowercase())
            .map_err(|_| UsageError(format!("--hash-on: {name:?} is no name of a header")))?;
        let Some(policy) = self.policy.clone() else {
            return Err(UsageError(
                "--hash-on names what a policy picks by: name one with --policy".to_owned(),
            ));
        };
        Ok(Some(policy.hash_on_header(header)))
    }

    fn headers(&self) -> Result<Vec<(AsciiMetadataKey, AsciiMetadataValue)>, UsageError> {
        let header = |Pair { key, value }: &Pair| {
            let name = key
                .to_lowercase()
                .parse::<AsciiMetadataKey>()
                .map_err(|_| UsageError(format!("--header: {key:?} is no name of a header with a text")))?;
            let value = AsciiMetadataValue::try_from(value.as_str())
                .map_err(|_| UsageError(format!("--header {key}: its value cannot stand in a header")))?;
            Ok((name, value))
        };
        self.headers.iter().map(header).collect()
    }
}
