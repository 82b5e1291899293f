//! The service config that clients of a service follow in etcd.

use futures::{Stream, StreamExt as _};
use serde_json::Value;
use waypost::SERVICE_CONFIG_PREFIX;
use waypost::channel::ServiceConfig;
use waypost::etcd::{Client, Error, KeyRange, Range};
use waypost::model::ServiceName;

use crate::report;

/// What is in etcd, and which of it is left out.
pub(crate) struct Followed {
    client: Client,
    service: ServiceName,
    /// Calls are spread as they are told on the command line.
    own_policy: bool,
}

// === impl Followed ===

impl Followed {
    pub(crate) fn new(client: Client, service: ServiceName, own_policy: bool) -> Self {
        Self { client, service, own_policy }
    }

    /// All that come from now on.
    pub(crate) fn updates(&self) -> impl Stream<Item = Option<String>> + use<> {
        let own_policy = self.own_policy;
        let documents = waypost::follow_service_config(self.client.clone(), &self.service);
        documents.map(move |document| document.map(|text| taken(text, own_policy)))
    }

    /// The one that there is, for the first calls. One that is invalid is told of.
    pub(crate) async fn current(&self) -> Result<Option<ServiceConfig>, Error> {
        let key = format!("{SERVICE_CONFIG_PREFIX}{}", self.service);
        let answer = self.client.range(Range::new(KeyRange::key(key.clone()))).await?;
        let Some(kv) = answer.kvs.first() else { return Ok(None) };
        let text = taken(String::from_utf8_lossy(&kv.value).into_owned(), self.own_policy);
        match text.parse() {
            Ok(config) => Ok(Some(config)),
            Err(error) => {
                report::warn(&format!(
                    "{key}: {error}; clients that follow it go on without it, as this does"
                ));
                Ok(None)
            }
        }
    }
}

/// The document; without what it says of the policy, if that is not wanted. What is no JSON object is left as it is.
fn taken(text: String, own_policy: bool) -> String {
    match serde_json::from_str(&text) {
        Ok(Value::Object(mut fields)) if own_policy => {
            fields.remove("loadBalancingConfig");
            fields.remove("loadBalancingPolicy");
            Value::Object(fields).to_string()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_our_own_counts_more() {
        let document =
            r#"{"loadBalancingConfig":[{"maglev":{}}],"loadBalancingPolicy":"random","methodConfig":[]}"#;
        assert_eq!(taken(document.to_owned(), false), document);
        assert_eq!(taken(document.to_owned(), true), r#"{"methodConfig":[]}"#);
        for strange in ["", "[]", "nonsense"] {
            assert_eq!(taken(strange.to_owned(), true), strange);
        }
    }
}
