//! What an address of etcd stands for: members of a cluster, or a folder.

use std::path::Path;

use waypost_etcd::ClientOptions;

use crate::error::Error;

/// The folder of an address `embedded:DIR`; `None` for any other address.
pub(crate) fn embedded_folder(endpoint: &str) -> Option<&Path> {
    let folder = endpoint.trim().strip_prefix("embedded:")?;
    // As after `unix:`, two slashes are nothing, and a third one begins a path.
    Some(Path::new(folder.strip_prefix("//").unwrap_or(folder)))
}

/// Options of a client at these addresses; a store in a folder is opened.
pub(crate) fn client_options(endpoints: Vec<String>) -> Result<ClientOptions, Error> {
    let Some(endpoint) = endpoints.iter().find(|endpoint| embedded_folder(endpoint).is_some()) else {
        return Ok(ClientOptions::new(endpoints));
    };
    let wrong = |reason| Error::Embedded { endpoint: endpoint.clone(), reason };
    if endpoints.len() > 1 {
        return Err(wrong("a store in a folder is all of etcd, so name no other address beside it"));
    }
    match embedded_folder(endpoint) {
        Some(folder) if !folder.as_os_str().is_empty() => open(endpoint, folder),
        _ => Err(wrong("name a folder, as in embedded:./data")),
    }
}

#[cfg(feature = "embed")]
fn open(endpoint: &str, folder: &Path) -> Result<ClientOptions, Error> {
    let shared = crate::embed::SharedServer::open_blocking(folder)
        .map_err(|source| Error::Open { endpoint: endpoint.to_owned(), source: Box::new(source) })?;
    Ok(crate::embed::client_options(&shared).holding(shared))
}

#[cfg(not(feature = "embed"))]
fn open(endpoint: &str, _: &Path) -> Result<ClientOptions, Error> {
    Err(Error::Embedded {
        endpoint: endpoint.to_owned(),
        reason: "this program was built without the feature `embed` of the crate waypost",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_behind_the_scheme() {
        for (endpoint, folder) in [
            ("embedded:./data", Some("./data")),
            (" embedded:/var/lib/waypost", Some("/var/lib/waypost")),
            ("embedded:///var/lib/waypost", Some("/var/lib/waypost")),
            ("embedded://data", Some("data")),
            ("embedded:", Some("")),
            ("http://embedded:2379", None),
            ("127.0.0.1:2379", None),
        ] {
            assert_eq!(embedded_folder(endpoint), folder.map(Path::new), "{endpoint}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let refused = |endpoints: &[&str]| {
            let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
            client_options(endpoints).unwrap_err().to_string()
        };
        assert!(refused(&["http://a:1", "embedded:./data"]).contains("no other address"));
        assert!(refused(&["embedded:"]).contains("name a folder"));
        if cfg!(not(feature = "embed")) {
            assert!(refused(&["embedded:./data"]).contains("feature `embed`"));
        }
    }
}
