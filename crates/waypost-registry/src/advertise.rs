//! Which address to tell others, given the one that the server listens on.
//!
//! `0.0.0.0`, `[::]` and an empty host are good to listen on and useless to dial. They are replaced by the address of
//! `POD_IP`, where that is set (Kubernetes' downward API), else by the local address of the route to etcd: whoever
//! discovers this process reaches etcd too, mostly through the same network. Where neither is to be had the answer is
//! an error that says what to set, never the useless address.
//!
//! ```
//! use waypost_registry::advertise::advertised;
//!
//! let environment = |name: &str| (name == "POD_IP").then(|| "10.1.2.3".to_owned());
//! let host = advertised("0.0.0.0", environment, || unreachable!())?;
//! assert_eq!(host.as_str(), "10.1.2.3");
//! # Ok::<(), waypost_registry::advertise::AdvertiseError>(())
//! ```

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
};

use waypost_model::{Endpoint, Host, Instance, InstanceId, InvalidEndpoint};

/// The environment variable that is asked first.
pub const POD_IP: &str = "POD_IP";

/// Why there is no address to advertise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The host is one that nobody can dial, and resolution is off.
    #[error("{host:?} cannot be dialed by anyone else: advertise a host name or an address of this machine")]
    Undialable {
        /// The host as it was given.
        host: String,
    },
    /// `POD_IP` is set to something that is no address to advertise.
    #[error("the environment variable POD_IP is {value:?}, which is not an address that others can dial")]
    PodIp {
        /// Its value.
        value: String,
    },
    /// There is no `POD_IP`, and the route to etcd gives no address either.
    #[error(
        "{host:?} cannot be dialed by anyone else and the route to etcd tells no address of this machine: set \
         POD_IP, or advertise a host name or an address"
    )]
    NoRoute {
        /// The host as it was given.
        host: String,
        /// Why the route tells none.
        source: Arc<io::Error>,
    },
    /// The port is 0: the server's socket has to be bound before it is advertised.
    #[error("port 0 cannot be dialed: advertise the port that the socket was given")]
    PortZero,
    /// The text is not a host at all.
    #[error("no host to advertise")]
    Host(#[from] InvalidEndpoint),
}

/// The host to advertise for a server that is bound to `bound`.
///
/// Pure: `environment` looks a variable up, `route` answers the local address of the route to etcd and is only asked
/// when `POD_IP` is not set. A host that can be dialed comes back as it is; IPv6 is accepted with and without brackets
/// and comes back without ([`Endpoint::authority`] adds them).
pub fn advertised(
    bound: &str,
    environment: impl FnOnce(&str) -> Option<String>,
    route: impl FnOnce() -> io::Result<IpAddr>,
) -> Result<Host, AdvertiseError> {
    let bare = bound.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bound);
    if !bare.is_empty() {
        let host = Host::new(bare)?;
        if is_dialable(&host) {
            return Ok(host);
        }
    }
    if let Some(value) = environment(POD_IP).filter(|value| !value.is_empty()) {
        return match value.parse::<IpAddr>() {
            Ok(ip) if is_address(ip) => Ok(ip.into()),
            _ => Err(AdvertiseError::PodIp { value }),
        };
    }
    let no_route = |source| AdvertiseError::NoRoute { host: bound.to_owned(), source: Arc::new(source) };
    match route() {
        Ok(ip) if is_address(ip) => Ok(ip.into()),
        Ok(ip) => Err(no_route(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("it gives {ip}")))),
        Err(source) => Err(no_route(source)),
    }
}

/// Whether another process could dial the host: anything but the unspecified, broadcast and multicast addresses.
/// Loopback is fine: it is what development and tests use.
pub fn is_dialable(host: &Host) -> bool {
    host.ip().is_none_or(is_address)
}

/// The local address that the operating system would use to reach one of `authorities` (`host:port`).
///
/// A UDP socket is connected and no packet is sent. A host name among `authorities` is resolved by the system, which
/// blocks for as long as that takes; addresses do not block.
pub fn route_to<A: AsRef<str>>(authorities: impl IntoIterator<Item = A>) -> io::Result<IpAddr> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no etcd endpoint");
    for authority in authorities {
        match authority.as_ref().to_socket_addrs() {
            Ok(targets) => {
                for target in targets {
                    match local_address_towards(target) {
                        Ok(ip) => return Ok(ip),
                        Err(error) => last = error,
                    }
                }
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Replaces, or with `resolve` off refuses, every host of the instance that nobody can dial. An id that was the
/// address of the primary endpoint stays that.
pub(crate) fn dialable(
    mut instance: Instance,
    resolve: bool,
    environment: impl Fn(&str) -> Option<String>,
    route: impl Fn() -> io::Result<IpAddr>,
) -> Result<Instance, AdvertiseError> {
    if instance.endpoints.iter().any(|endpoint| endpoint.port == 0) {
        return Err(AdvertiseError::PortZero);
    }
    if instance.endpoints.iter().all(|endpoint| is_dialable(&endpoint.host)) {
        return Ok(instance);
    }
    let id_is_address = instance.has_default_id();
    let endpoints: Vec<Endpoint> = instance
        .endpoints
        .iter()
        .map(|endpoint| {
            let host = &endpoint.host;
            if !resolve && !is_dialable(host) {
                return Err(AdvertiseError::Undialable { host: host.to_string() });
            }
            let host = advertised(host, &environment, &route)?;
            Ok(Endpoint { host, ..endpoint.clone() })
        })
        .collect::<Result<_, _>>()?;
    if let Some(endpoints) = waypost_model::Endpoints::from_vec(endpoints) {
        instance.endpoints = endpoints;
    }
    if id_is_address && let Ok(id) = InstanceId::new(instance.address()) {
        instance.id = id;
    }
    Ok(instance)
}

fn is_address(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn local_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn no_route() -> io::Result<IpAddr> {
        Err(io::Error::from(io::ErrorKind::NetworkUnreachable))
    }

    const ROUTE: fn() -> io::Result<IpAddr> = || Ok(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));

    #[test]
    fn a_host_that_can_be_dialed_is_kept() {
        for (bound, host) in [
            ("greeter.example", "greeter.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(advertised(bound, none, no_route).unwrap().as_str(), host);
        }
    }

    #[test]
    fn the_undialable_becomes_the_pod_then_the_route_then_an_error() {
        for bound in
            ["0.0.0.0", "[::]", "::", "", "::ffff:0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"]
        {
            let pod = |_: &str| Some("fd00::5".to_owned());
            assert_eq!(advertised(bound, pod, no_route).unwrap().as_str(), "fd00::5", "{bound}");
            assert_eq!(advertised(bound, none, ROUTE).unwrap().as_str(), "10.0.0.7", "{bound}");
            let error = advertised(bound, none, no_route).unwrap_err();
            assert!(matches!(error, AdvertiseError::NoRoute { .. }), "{bound}: {error}");
            assert!(error.to_string().contains("POD_IP"), "{error}");
        }
    }

    #[test]
    fn an_environment_that_is_no_better_is_an_error() {
        for value in ["0.0.0.0", "::", "somewhere", "10.0.0.1:80"] {
            let error = advertised("0.0.0.0", |_| Some(value.to_owned()), ROUTE).unwrap_err();
            assert!(matches!(error, AdvertiseError::PodIp { .. }), "{error}");
        }
        assert_eq!(advertised("", |_| Some(String::new()), ROUTE).unwrap().as_str(), "10.0.0.7");
    }

    #[test]
    fn a_route_to_nowhere_in_particular_is_an_error() {
        let error = advertised("0.0.0.0", none, || Ok(Ipv6Addr::UNSPECIFIED.into())).unwrap_err();
        assert!(matches!(error, AdvertiseError::NoRoute { .. }), "{error}");
    }

    #[test]
    fn an_id_that_was_the_address_stays_the_address() {
        let bound = Instance::new("greeter".parse().unwrap(), "0.0.0.0:50051".parse().unwrap())
            .with_endpoint("http://[::]:8080".parse().unwrap());
        let instance = dialable(bound.clone(), true, none, || Ok("fd00::7".parse().unwrap())).unwrap();
        assert_eq!(instance.id.as_str(), "[fd00::7]:50051");
        let endpoints: Vec<String> = instance.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["grpc://[fd00::7]:50051", "http://[fd00::7]:8080"]);

        let named = bound.clone().with_id("one".parse().unwrap());
        assert_eq!(dialable(named, true, none, ROUTE).unwrap().id.as_str(), "one");
        let refused = dialable(bound, false, none, ROUTE).unwrap_err();
        assert!(matches!(refused, AdvertiseError::Undialable { .. }), "{refused}");
    }

    #[test]
    fn port_zero_is_refused() {
        let mut endpoint: Endpoint = "10.0.0.1:1".parse().unwrap();
        endpoint.port = 0;
        let instance = Instance::new("greeter".parse().unwrap(), endpoint);
        assert!(matches!(dialable(instance, true, none, ROUTE), Err(AdvertiseError::PortZero)));
    }

    #[test]
    fn the_route_to_loopback_is_loopback() {
        assert_eq!(route_to(["127.0.0.1:2379"]).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(route_to::<&str>([]).is_err());
    }
}
