//! Who asks: what is shown to a server with each call.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A channel whose calls show a token, or none.
pub(crate) type Port = InterceptedService<Channel, Shown>;

/// What a call shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(Option<MetadataValue<Ascii>>);

// === impl Shown ===

impl Shown {
    /// Who shows a token that was never given to anyone.
    pub(crate) const STRANGER: &str = "stranger";

    pub(crate) fn token(token: &str) -> Self {
        Self(Some(token.parse().unwrap()))
    }

    pub(crate) fn of_a_stranger() -> Self {
        Self::token("abcdefghijklmnop.1")
    }
}

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}
