//! Where etcd is and who we are to it.

use std::path::PathBuf;

use clap::Args;
use waypost::embed::{self, SharedServer};
use waypost::etcd::{ClientOptions, TlsOptions};

use super::{Environment, UsageError};

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2379";
/// Answers are as large as gRPC lets them be: `kv get --prefix` may ask for everything.
const MAX_ANSWER: usize = 2_147_483_647;

/// Where etcd is and who we are to it.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "etcd")]
pub(crate) struct ConnectionArgs {
    /// Comma-separated addresses of etcd, or embedded:DIR for a store in that folder, which every command that names it
    /// shares [env: WAYPOST_ENDPOINTS, ETCDCTL_ENDPOINTS] [default: http://127.0.0.1:2379]
    #[arg(long, global = true, value_name = "URLS")]
    pub(crate) endpoints: Option<String>,
    /// A user of etcd; the password is better given in WAYPOST_PASSWORD or ETCDCTL_PASSWORD [env: WAYPOST_USER, ETCDCTL_USER]
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
    /// The certificate authority (PEM) that etcd's certificate is checked against [env: WAYPOST_CACERT, ETCDCTL_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// A certificate (PEM) to show to etcd [env: WAYPOST_CERT, ETCDCTL_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// The key (PEM) of that certificate [env: WAYPOST_KEY, ETCDCTL_KEY]
    #[arg(long = "key", global = true, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
}

/// Where etcd is and who we are to it, once options and environment are put together.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) endpoints: Vec<String>,
    /// Name and password.
    pub(crate) user: Option<(String, String)>,
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

// === impl ConnectionArgs ===

impl ConnectionArgs {
    /// The endpoints that the option or the environment names.
    pub(crate) fn named(&self, environment: Environment) -> Option<String> {
        self.endpoints.clone().or_else(|| environment.own_or_etcdctl("ENDPOINTS"))
    }

    /// Option, then environment, then default.
    pub(crate) fn resolve(&self, environment: Environment) -> Result<Connection, UsageError> {
        let endpoints = self.named(environment).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let file = |option: &Option<PathBuf>, name: &str| {
            option.clone().or_else(|| environment.own_or_etcdctl(name).map(PathBuf::from))
        };
        Ok(Connection {
            endpoints: endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(),
            user: self.user(environment)?,
            cacert: file(&self.cacert, "CACERT"),
            cert: file(&self.cert, "CERT"),
            key: file(&self.client_key, "KEY"),
        })
    }

    fn user(&self, environment: Environment) -> Result<Option<(String, String)>, UsageError> {
        let Some(user) = self.user.clone().or_else(|| environment.own_or_etcdctl("USER")) else {
            return Ok(None);
        };
        if let Some((name, password)) = user.split_once(':') {
            return Ok(Some((name.to_owned(), password.to_owned())));
        }
        match environment.own_or_etcdctl("PASSWORD") {
            Some(password) => Ok(Some((user, password))),
            None => Err(UsageError(format!(
                "user {user} needs a password: set WAYPOST_PASSWORD, or give --user {user}:PASSWORD"
            ))),
        }
    }
}

// A derived one would show the password.
impl std::fmt::Debug for ConnectionArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionArgs").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

// === impl Connection ===

impl Connection {
    /// The store that the endpoints name, if they name a folder. Opened: it is served here or elsewhere.
    pub(crate) async fn open(&self) -> anyhow::Result<Option<SharedServer>> {
        let Some(endpoint) = self.endpoints.iter().find(|endpoint| embed::folder_of(endpoint).is_some())
        else {
            return Ok(None);
        };
        let usage = |text: &str| UsageError(format!("{endpoint}: {text}"));
        if self.endpoints.len() > 1 {
            return Err(usage("a store in a folder is all of etcd: name no other endpoint beside it").into());
        }
        if self.cacert.is_some() || self.cert.is_some() || self.key.is_some() {
            return Err(usage("a store in a folder is reached without TLS: name no certificates").into());
        }
        match embed::folder_of(endpoint) {
            Some(folder) if !folder.as_os_str().is_empty() => Ok(Some(SharedServer::open(folder).await?)),
            _ => Err(usage("name a folder, as in embedded:./data").into()),
        }
    }

    /// Options of a client; of the store's, if it was opened.
    pub(crate) fn options(
        &self,
        store: Option<&SharedServer>,
    ) -> Result<ClientOptions, waypost::etcd::Error> {
        let options = match store {
            Some(store) => embed::client_options(store),
            None => ClientOptions::new(self.endpoints.iter().cloned()),
        };
        let mut options = options.max_receive_bytes(MAX_ANSWER);
        if let Some((name, password)) = &self.user {
            options = options.user(name, password);
        }
        if self.cacert.is_some() || self.cert.is_some() || self.key.is_some() {
            let files =
                TlsOptions::from_files(self.cacert.as_deref(), self.cert.as_deref(), self.key.as_deref())?;
            options = options.tls(files);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcdctl_only(name: &str) -> Option<String> {
        match name {
            "ETCDCTL_ENDPOINTS" => Some("10.0.0.1:2379, 10.0.0.2:2379".into()),
            "ETCDCTL_USER" => Some("root".into()),
            "ETCDCTL_PASSWORD" => Some("s:ecret".into()),
            "WAYPOST_CACERT" => Some(String::new()),
            "ETCDCTL_CACERT" => Some("ca.pem".into()),
            _ => None,
        }
    }

    #[test]
    fn option_then_our_environment_then_etcdctls_then_default() {
        let none = Environment::of(|_| None);
        let etcdctl = Environment::of(etcdctl_only);
        let both = Environment::of(|name| {
            if name == "WAYPOST_ENDPOINTS" { Some("http://c:1".into()) } else { etcdctl_only(name) }
        });
        let given = ConnectionArgs { endpoints: Some("http://d:1".into()), ..Default::default() };
        let endpoints = |args: &ConnectionArgs, environment| args.resolve(environment).unwrap().endpoints;
        assert_eq!(endpoints(&ConnectionArgs::default(), none), [DEFAULT_ENDPOINT]);
        assert_eq!(endpoints(&ConnectionArgs::default(), etcdctl), ["10.0.0.1:2379", "10.0.0.2:2379"]);
        assert_eq!(endpoints(&ConnectionArgs::default(), both), ["http://c:1"]);
        assert_eq!(endpoints(&given, both), ["http://d:1"]);
        let resolved = ConnectionArgs::default().resolve(etcdctl).unwrap();
        assert_eq!(resolved.cacert, Some(PathBuf::from("ca.pem")), "an empty variable is not set");
    }

    #[test]
    fn the_password_comes_from_the_option_or_the_environment_and_is_never_shown() {
        let etcdctl = Environment::of(etcdctl_only);
        let user = |text: &str, environment| {
            ConnectionArgs { user: Some(text.into()), ..Default::default() }.user(environment)
        };
        assert_eq!(user("a:b:c", etcdctl).unwrap(), Some(("a".into(), "b:c".into())));
        assert_eq!(user("a", etcdctl).unwrap(), Some(("a".into(), "s:ecret".into())));
        assert!(user("a", Environment::of(|_| None)).is_err());
        let args = ConnectionArgs { user: Some("a:hidden".into()), ..Default::default() };
        assert!(!format!("{args:?}").contains("hidden"));
    }
}
