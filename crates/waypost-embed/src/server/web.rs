//! What is asked over HTTP without gRPC: the JSON gateway and the pages, with etcd's rules for web pages of other origins.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tonic::body::Body;

use super::front::Front;
use super::gateway::{self, websocket};
use super::plain;

/// The origins whose web pages may read what is answered over HTTP (CORS), as `--cors` names them.
///
/// A browser asks for that; no other client looks at it. etcd's default, and so the default here, is every origin: a page
/// from anywhere may then read what a browser of this machine reaches, unless users are needed for it.
///
/// ```
/// use waypost_embed::server::Origins;
///
/// let origins: Origins = "https://console.example,http://localhost:8080".parse()?;
/// assert_ne!(origins, Origins::Any);
/// assert!("localhost".parse::<Origins>().is_err());
/// # Ok::<(), waypost_embed::server::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Every one: `*`.
    #[default]
    Any,
    /// These and no other, each as browsers write it: `http://host`, or `http://host:port` where that is not the usual one.
    Only(BTreeSet<String>),
}

/// What is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: it must be * or like https://host or https://host:port")]
pub struct OriginError(String);

/// Answers what is not gRPC.
pub(super) async fn answer(front: Front, request: Request<Incoming>) -> Response<Body> {
    let permission = front.engine.shared.options.origins.permission(request.headers());
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::empty())
    } else {
        route(front, request, permission.is_some()).await
    };
    if let Some(origin) = permission.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS) {
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, fixed("accept, content-type, authorization"));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, fixed("POST, GET, OPTIONS, PUT, DELETE"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// `permitted`: whether the origin that is shown may read the answer.
async fn route(front: Front, request: Request<Incoming>, permitted: bool) -> Response<Body> {
    let Some(method) = gateway::method(request.uri().path()) else {
        return plain::answer(&front.engine, &request.into_parts().0).await;
    };
    if websocket::is_asked(request.headers()) {
        // What a browser leaves to the server: it lets every page read.
        if request.headers().contains_key(ORIGIN) && !permitted {
            return plain::text(StatusCode::FORBIDDEN, "Forbidden\n");
        }
        return websocket::answer(front, method, request);
    }
    match *request.method() {
        Method::POST => gateway::call(front, method, request).await,
        _ => plain::only("POST"),
    }
}

// === impl Origins ===

impl Origins {
    /// What a browser is told; `None`: nothing, so that it keeps the answer from the page.
    fn permission(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => {
                let origin = headers.get(ORIGIN)?;
                origin.to_str().ok().filter(|name| origins.contains(*name)).map(|_| origin.clone())
            }
        }
    }
}

impl FromStr for Origins {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let origins = text.split(',').map(|name| {
            let url = name.parse::<Uri>().ok().filter(is_origin);
            // Browsers write it in lower case and without a slash.
            url.map(|_| name.trim_end_matches('/').to_ascii_lowercase())
                .ok_or_else(|| OriginError(name.to_owned()))
        });
        origins.collect::<Result<_, _>>().map(Self::Only)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Only(origins) => {
                f.write_str(&origins.iter().map(String::as_str).collect::<Vec<_>>().join(","))
            }
        }
    }
}

fn is_origin(url: &Uri) -> bool {
    let plain = url
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    plain && matches!(url.scheme_str(), Some("http" | "https")) && url.path() == "/" && url.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, shown) in [
            ("*", "*"),
            ("http://a.example", "http://a.example"),
            ("https://B.example:8443/,http://a:80", "http://a:80,https://b.example:8443"),
        ] {
            assert_eq!(text.parse::<Origins>().map(|origins| origins.to_string()).as_deref(), Ok(shown));
        }
        for text in
            ["", "a", "*,http://a", "a:80", "ftp://a", "http://", "http://a/b", "http://u@a", "http://a,"]
        {
            let refused = text.parse::<Origins>().unwrap_err();
            assert!(refused.to_string().contains("is no origin"), "{text}: {refused}");
        }
    }
}
