//! Service configs in etcd: one key for each service, watched by every channel that is told to.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use waypost_etcd::{Backoff, Client, Error, EventKind, KeyRange, Range, WatchEvent, WatchSpec, Watcher};
use waypost_model::ServiceName;

/// What the keys of service configs begin with; the name of the service follows.
pub const SERVICE_CONFIG_PREFIX: &str = "waypost/service-config/";

/// Follows one key.
struct Follower {
    client: Client,
    key: Arc<str>,
    /// While it stands, events come from here; otherwise the key is to be read.
    watcher: Option<Watcher>,
    backoff: Backoff,
    /// What was told last.
    told: Option<String>,
}

/// The service config of a service as etcd has it: each time that it is another than before, beginning with none. Whatever happens
/// to etcd, the stream goes on: what was told last holds until something else is known.
///
/// This is what channels follow after [`follow_service_configs`](crate::Builder::follow_service_configs); for a channel that is built of
/// other parts, give it to [`service_config_updates`](waypost_channel::ChannelBuilder::service_config_updates).
pub fn follow_service_config(
    client: Client,
    service: &ServiceName,
) -> impl Stream<Item = Option<String>> + Send + use<> {
    let follower = Follower {
        client,
        key: format!("{SERVICE_CONFIG_PREFIX}{service}").into(),
        watcher: None,
        backoff: Backoff::eager(Duration::from_millis(100), Duration::from_secs(30)),
        told: None,
    };
    stream::unfold(follower, async |mut follower| {
        let value = follower.next().await;
        Some((value, follower))
    })
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> Option<String> {
        loop {
            let value = match &mut self.watcher {
                Some(watcher) => match newest(watcher.next().await) {
                    Step::Value(value) => value,
                    Step::Nothing => continue,
                    Step::Lost(cause) => {
                        tracing::debug!(key = &*self.key, cause, "reading the service config again");
                        self.watcher = None;
                        continue;
                    }
                    Step::Refused(error) => {
                        self.pause(&error).await;
                        continue;
                    }
                },
                None => match self.read().await {
                    Ok(value) => value,
                    Err(error) => {
                        self.pause(&error).await;
                        continue;
                    }
                },
            };
            if value != self.told {
                self.told.clone_from(&value);
                return value;
            }
        }
    }

    /// Reads the key, and watches it from there.
    async fn read(&mut self) -> Result<Option<String>, Error> {
        let key = || KeyRange::key(self.key.as_bytes().to_vec());
        let answer = self.client.range(Range::new(key())).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let watcher = self.client.watch();
        watcher.add(WatchSpec::new(key()).from(revision + 1));
        self.watcher = Some(watcher);
        self.backoff.succeed();
        Ok(answer.kvs.first().map(|kv| text(&kv.value)))
    }

    async fn pause(&mut self, error: &Error) {
        self.watcher = None;
        let wait = self.backoff.fail(fastrand::f64());
        if self.backoff.failures() == 1 {
            tracing::warn!(key = &*self.key, %error, "the service config cannot be read; what was read last holds");
        }
        tokio::time::sleep(wait).await;
    }
}

/// What an event of the watch comes to.
enum Step {
    Value(Option<String>),
    Nothing,
    Lost(String),
    Refused(Error),
}

fn newest(event: WatchEvent) -> Step {
    match event {
        WatchEvent::Events { events, .. } => events.last().map_or(Step::Nothing, |event| {
            Step::Value((event.kind == EventKind::Put).then(|| text(&event.kv.value)))
        }),
        WatchEvent::Reset { reason, .. } => Step::Lost(reason.to_string()),
        WatchEvent::Refused { error, .. } => Step::Refused(error),
        _ => Step::Nothing,
    }
}

/// What is no UTF-8 is no JSON either, and is refused where it is read as such: as this text, which is none.
fn text(value: &[u8]) -> String {
    let refused = |error| format!("not UTF-8: {error}");
    std::str::from_utf8(value).map_or_else(refused, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_channel::ServiceConfig;

    #[test]
    fn what_is_no_utf8_is_no_service_config() {
        let config = r#"{"methodConfig": [{"name": [{"service": "café.Menu"}]}]}"#;
        assert!(text(config.as_bytes()).parse::<ServiceConfig>().is_ok());
        let config = b"{\"methodConfig\": [{\"name\": [{\"service\": \"caf\xe9.Menu\"}]}]}";
        assert!(text(config).parse::<ServiceConfig>().is_err());
    }
}
