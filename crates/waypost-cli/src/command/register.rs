//! `waypost register`.

use std::io;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use waypost::model::{Endpoint, Instance, InstanceId, ServiceName, Status};
use waypost::registry::{Conflict, Registration, RegistrationState, Registry, RegistryOptions};

use crate::args::{Environment, LayoutArgs, Pair, parse_duration, parse_pair};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Output, Tone};
use crate::report;
use crate::session::Session;

/// Keep an instance registered until interrupted, then deregister it.
///
/// For a process that cannot register by itself. While etcd is away it goes on trying.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waypost register greeter 10.0.0.5:50051
  waypost register web http://0.0.0.0:8080 --zone a --metadata team=shop
  waypost register db/orders 10.0.0.7:5432 --ttl 5s --conflict reject")]
pub(crate) struct RegisterArgs {
    /// The service.
    service: ServiceName,
    /// Where it is called, [SCHEME://]HOST:PORT. A host of 0.0.0.0 stands for this machine's address.
    #[arg(value_parser = parse_address)]
    address: Endpoint,
    /// The id within the service [default: the address].
    #[arg(long)]
    id: Option<InstanceId>,
    /// Its share of calls relative to others.
    #[arg(long, default_value_t = waypost::model::DEFAULT_WEIGHT)]
    weight: u32,
    /// The zone that it runs in [env: WAYPOST_ZONE]
    #[arg(long)]
    zone: Option<String>,
    /// The version of what runs.
    #[arg(long)]
    version: Option<String>,
    /// What else is to be known of it; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    metadata: Vec<Pair>,
    /// How long its key outlives this process if that is killed [default: the layout's, grpc: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// What to do when somebody has the key.
    #[arg(long, value_enum, default_value_t)]
    conflict: OnConflict,
    #[command(flatten)]
    layout: LayoutArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OnConflict {
    /// Take it over.
    #[default]
    Replace,
    /// Fail with exit code 5.
    Reject,
}

/// One line of JSON: where the registration stands.
#[derive(Serialize)]
struct Line<'a> {
    state: &'static str,
    service: &'a ServiceName,
    id: &'a InstanceId,
    address: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

/// `:8080` is every address of this machine, as servers write it.
fn parse_address(text: &str) -> Result<Endpoint, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse::<Endpoint>().map_err(|error| error.to_string())
}

// === impl RegisterArgs ===

impl RegisterArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let mut interrupt = Interrupt::new()?;
        let layout = session.layout(self.layout.clone())?;
        let name = layout.name();
        let mut options = RegistryOptions::new(layout).conflict(self.conflict.into());
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        let registry = Registry::new(session.client.clone(), options);
        let registration = registry.register(self.into_instance())?;
        warn_of_losses(&registration, name);

        let refused = follow(&mut session.out, &registration, &mut interrupt).await?;
        if refused {
            // Says who has the key.
            registration.registered().await?;
        }
        let ended = registration.instance();
        registration.deregister().await?;
        show(&mut session.out, &RegistrationState::Deregistered, &ended)?;
        registry.shutdown(Duration::from_secs(5)).await?;
        Ok(Exit::Ok)
    }

    fn into_instance(self) -> Instance {
        let mut instance = Instance::new(self.service, self.address).with_weight(self.weight);
        instance.zone = self.zone.or_else(|| Environment::of_process().own("ZONE"));
        instance.version = self.version;
        if let Some(id) = self.id {
            instance = instance.with_id(id);
        }
        self.metadata
            .into_iter()
            .fold(instance, |instance, Pair { key, value }| instance.with_metadata(key, value))
    }
}

/// Tells every change until interrupted (`false`) or refused for good (`true`).
async fn follow(
    out: &mut Output,
    registration: &Registration,
    interrupt: &mut Interrupt,
) -> io::Result<bool> {
    let mut states = registration.state();
    let mut instances = registration.instances();
    loop {
        let state = states.borrow_and_update().clone();
        let instance = instances.borrow_and_update().clone();
        if matches!(state, RegistrationState::Refused { .. }) {
            return Ok(true);
        }
        show(out, &state, &instance)?;
        tokio::select! {
            // The registration is here, so neither channel is closed.
            _ = states.changed() => {}
            _ = instances.changed() => {}
            () = interrupt.next() => return Ok(false),
        }
    }
}

fn show(out: &mut Output, state: &RegistrationState, instance: &Instance) -> io::Result<()> {
    let (lease, revision, cause) = match state {
        RegistrationState::Registered { lease, revision } => (Some(*lease), Some(*revision), None),
        RegistrationState::Registering { cause, .. } => (None, None, cause.as_deref()),
        RegistrationState::Suspect { cause } | RegistrationState::Refused { cause } => {
            (None, None, Some(&**cause))
        }
        RegistrationState::Deregistered => (None, None, None),
    };
    if out.is_json() {
        return out.json(&Line {
            state: state.name(),
            service: &instance.service,
            id: &instance.id,
            address: instance.address(),
            status: instance.status,
            lease: lease.map(|lease| format!("{lease:016x}")),
            revision,
            cause,
        });
    }
    let tone = match state {
        RegistrationState::Registered { .. } => Tone::Good,
        RegistrationState::Deregistered => Tone::Quiet,
        _ => Tone::Doubtful,
    };
    let state = report::printable(&state.to_string());
    let status = if instance.status == Status::Up { String::new() } else { format!(", {}", instance.status) };
    let line = format!(
        "{}/{} at {}: {}{status}",
        instance.service,
        instance.id,
        instance.endpoints.primary(),
        out.toned(state, tone)
    );
    out.line(line)
}

fn warn_of_losses(registration: &Registration, layout: &str) {
    let lost: Vec<String> = registration.lost().iter().map(ToString::to_string).collect();
    if !lost.is_empty() {
        report::warn(&format!("layout {layout} has no place for: {}", lost.join(", ")));
    }
}

impl From<OnConflict> for Conflict {
    fn from(on: OnConflict) -> Self {
        match on {
            OnConflict::Replace => Self::Replace,
            OnConflict::Reject => Self::Reject,
        }
    }
}
