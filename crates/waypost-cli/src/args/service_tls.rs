//! TLS to the servers that `call` calls, which is another thing than TLS to etcd.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use waypost::channel::TcpConnector;
use waypost::channel::rustls::pki_types::ServerName;

use super::{Environment, UsageError};

/// TLS to the servers of a service.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS to the service")]
pub(crate) struct ServiceTlsArgs {
    /// The certificate authority (PEM) that the servers' certificates are checked against; instances that ask for TLS need
    /// it [env: WAYPOST_SERVICE_CACERT]
    #[arg(id = "service_cacert", long = "service-cacert", value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// A certificate (PEM) to show to the servers [env: WAYPOST_SERVICE_CERT]
    #[arg(id = "service_cert", long = "service-cert", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key (PEM) of that certificate [env: WAYPOST_SERVICE_KEY]
    #[arg(id = "service_key", long = "service-key", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name that the servers' certificates are for, where it is not the host that they are registered with.
    #[arg(id = "service_cert_name", long = "service-cert-name", value_name = "NAME")]
    cert_name: Option<String>,
    /// TLS to all instances, also where the layout cannot say that they want it, as grpc cannot.
    #[arg(id = "service_tls", long = "service-tls")]
    always: bool,
}

// === impl ServiceTlsArgs ===

impl ServiceTlsArgs {
    /// Option, then environment.
    pub(crate) fn connector(self, environment: Environment) -> anyhow::Result<TcpConnector> {
        let file = |option: Option<PathBuf>, name: &str| {
            option.or_else(|| environment.own(&format!("SERVICE_{name}")).map(PathBuf::from))
        };
        let (cacert, cert, key) =
            (file(self.cacert, "CACERT"), file(self.cert, "CERT"), file(self.key, "KEY"));
        let connector = TcpConnector::new();
        let Some(cacert) = cacert else {
            if cert.is_some() || key.is_some() || self.cert_name.is_some() || self.always {
                let text =
                    "TLS to a service needs the authority of its certificates: name it with --service-cacert";
                return Err(UsageError(text.to_owned()).into());
            }
            return Ok(connector);
        };
        let identity = match (&cert, &key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => {
                let text =
                    "a certificate and its key go together: name both --service-cert and --service-key";
                return Err(UsageError(text.to_owned()).into());
            }
        };
        let identity = identity.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]));
        let mut connector = connector.with_pem(read(&cacert)?, identity).with_context(|| {
            let files = [Some(&cacert), cert.as_ref(), key.as_ref()];
            let files: Vec<_> = files.into_iter().flatten().map(|file| file.display().to_string()).collect();
            files.join(", ")
        })?;
        if let Some(name) = self.cert_name {
            let name = ServerName::try_from(name.clone())
                .map_err(|_| UsageError(format!("--service-cert-name: {name:?} is no name of a host")))?;
            connector = connector.with_server_name(name);
        }
        Ok(if self.always { connector.always_tls() } else { connector })
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
