//! What tonic generates for a service, as one bound.

use std::convert::Infallible;

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes, Service, StdError, http};
use tonic::server::NamedService;
use tonic::service::Routes;

/// What tonic generates for a service (`GreeterServer`), also with an interceptor around it. Implemented for all of
/// them; there is nothing to implement by hand.
pub trait GrpcService<B>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    fn add_to(self, routes: Routes) -> Routes;
}

impl<S, B> GrpcService<B> for S
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    fn add_to(self, routes: Routes) -> Routes {
        routes.add_service(self)
    }
}
