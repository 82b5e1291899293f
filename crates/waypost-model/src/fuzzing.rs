//! The bodies of the fuzz targets, and the invariants that they and the property tests check.
//!
//! Nothing here is an interface: it is compiled for tests and under the feature `fuzzing`.

#![expect(clippy::panic, reason = "a broken invariant is reported by panicking")]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{
    Carries, Encoded, Endpoint, Field, Instance, InstanceId, LAYOUT_NAMES, Layout, RawKv, Scheme,
    ServiceName, Status, layout,
};

/// The lease of every instance that is written here.
pub const LEASE: i64 = 7_587_862_094_531_234_567;

/// Every layout under its default prefix.
pub fn all_layouts() -> Vec<Arc<dyn Layout>> {
    layouts_under(None)
}

/// Arbitrary keys and values: the first byte of `data` is the length of the key, what follows it is the value.
pub fn layouts(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (tail, value) = rest.split_at(rest.len().min(usize::from(*length)));
    for layout in [None, Some(""), Some("p")].into_iter().flat_map(layouts_under) {
        let below = [layout.prefix().as_bytes(), b"/", tail].concat();
        for key in [tail, &below] {
            if let Some(part) = layout.identify(key) {
                assert!(part.part < layout.parts(), "{layout:?} {part:?}");
            }
            let kv = RawKv { key, value, lease: LEASE };
            check_decode(&*layout, &vec![Some(kv); usize::from(layout.parts())]);
        }
    }
}

/// Arbitrary values of good keys, the URLs and the JSON forms.
pub fn values(data: &[u8]) {
    let good = good_instance();
    for layout in all_layouts() {
        let Ok(encoded) = layout.encode(&good, LEASE) else { continue };
        for replaced in 0..encoded.entries.len() {
            let mut parts = raw(&encoded);
            parts[replaced] = parts[replaced].map(|kv| RawKv { value: data, ..kv });
            check_decode(&*layout, &parts);
        }
        if let Ok(instance) = serde_json::from_slice::<Instance>(data) {
            check_round_trip(&*layout, &instance);
        }
    }
    let text = String::from_utf8_lossy(data);
    check_texts(&text);
    check_urls(&text);
}

/// Panics unless `instance` is read back as it was written, but for what the layout says that it lost. Instances
/// that the layout refuses are let pass.
pub fn check_round_trip(layout: &dyn Layout, instance: &Instance) {
    let Ok(encoded) = layout.encode(instance, LEASE) else { return };
    let spans = layout.service_spans(&instance.service);
    assert_eq!(encoded.entries.len(), usize::from(layout.parts()), "{layout:?}");
    let mut id = None;
    for (number, entry) in (0..).zip(&encoded.entries) {
        let Some(part) = layout.identify(&entry.key) else {
            panic!("{layout:?} does not know its own key {:?}", String::from_utf8_lossy(&entry.key));
        };
        assert!(spans.iter().any(|span| span.contains(&entry.key)), "{layout:?} {part:?}");
        assert!(layout.catalog_span().is_none_or(|span| span.contains(&entry.key)), "{layout:?}");
        assert_eq!(
            (&part.service, part.part),
            (&layout.service_in_key(&instance.service), number),
            "{layout:?}"
        );
        assert_eq!(*id.get_or_insert_with(|| part.id.clone()), part.id, "{layout:?}");
    }
    let Some(id) = id else { return };
    if layout.carries().contains(Carries::ID) {
        assert_eq!(id, instance.id, "{layout:?}");
    }
    match layout.decode(&raw(&encoded)) {
        Ok(Some(read)) => assert_eq!(read, without(instance, &encoded.lost, id, &read), "{layout:?}"),
        other => panic!("{layout:?} does not read what it wrote of {instance:?}: {other:?}"),
    }
}

/// An instance that every layout can write in full.
fn good_instance() -> Instance {
    let endpoint =
        Endpoint { scheme: Scheme::Grpc, host: IpAddr::from(Ipv4Addr::LOCALHOST).into(), port: 80 };
    match ServiceName::new("s") {
        Ok(service) => Instance::new(service, endpoint),
        Err(error) => panic!("{error}"),
    }
}

fn layouts_under(prefix: Option<&str>) -> Vec<Arc<dyn Layout>> {
    LAYOUT_NAMES.iter().filter_map(|name| layout(name, prefix).ok()).collect()
}

fn raw(encoded: &Encoded) -> Vec<Option<RawKv<'_>>> {
    encoded
        .entries
        .iter()
        .map(|entry| Some(RawKv { key: &entry.key, value: &entry.value, lease: LEASE }))
        .collect()
}

/// Whatever was read can be written and is read again; an error is short.
fn check_decode(layout: &dyn Layout, parts: &[Option<RawKv<'_>>]) {
    match layout.decode(parts) {
        Ok(None) => {}
        Ok(Some(instance)) => check_round_trip(layout, &instance),
        Err(error) => {
            assert_eq!(error.layout(), layout.name());
            let text = format!("{error}: {}", error.cause());
            // Control characters are written as escapes of up to eight bytes.
            assert!(text.len() < 4000, "{text}");
        }
    }
}

/// `instance` as a layout that lost `lost` can at best give it back.
fn without(instance: &Instance, lost: &[Field], id: InstanceId, read: &Instance) -> Instance {
    let mut rest = Instance { id, ..instance.clone() };
    rest.zone = rest.zone.filter(|zone| !zone.is_empty());
    rest.version = rest.version.filter(|version| !version.is_empty());
    let mut endpoints = Vec::new();
    for (index, endpoint) in instance.endpoints.iter().enumerate() {
        if !lost.contains(&Field::Endpoint(index)) {
            endpoints.push(endpoint.clone());
        }
    }
    for field in lost {
        match field {
            Field::Scheme => endpoints[0].scheme = Scheme::default(),
            // A lost weight is read as the layout's own default.
            Field::Weight => rest.weight = read.weight,
            Field::Zone => rest.zone = None,
            Field::Version => rest.version = None,
            Field::Status => rest.status = Status::default(),
            Field::Metadata(key) => drop(rest.metadata.remove(key)),
            Field::Id | Field::Service | Field::Endpoint(_) => {}
        }
    }
    if let Some(endpoints) = crate::Endpoints::from_vec(endpoints) {
        rest.endpoints = endpoints;
    }
    rest
}

fn check_texts(text: &str) {
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse().ok(), Some(endpoint));
    }
    if let Ok(service) = text.parse::<ServiceName>() {
        let instance = Instance { service, ..good_instance() };
        for layout in all_layouts() {
            check_round_trip(&*layout, &instance);
        }
    }
    if let Ok(instance) = serde_json::from_str::<Instance>(text) {
        let again = serde_json::to_string(&instance).ok().and_then(|json| serde_json::from_str(&json).ok());
        assert_eq!(again, Some(instance));
    }
}

/// `text` as the URL of a Kratos endpoint and of a Dubbo provider.
fn check_urls(text: &str) {
    for layout in all_layouts() {
        let (key, value) = match layout.name() {
            "kratos" => {
                ("/microservices/s/1".to_owned(), serde_json::json!({ "endpoints": [text] }).to_string())
            }
            "dubbo" => (format!("/dubbo/s/providers/{}", text.replace('/', "%2F")), String::new()),
            _ => continue,
        };
        check_decode(&*layout, &[Some(RawKv { key: key.as_bytes(), value: value.as_bytes(), lease: LEASE })]);
    }
}
