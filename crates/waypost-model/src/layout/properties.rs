//! What holds for every layout and every instance. The seed is fixed: a run is the same everywhere; the open-ended
//! search is the business of the fuzz targets, whose bodies run here for a bounded while.

use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::RngSeed};
use serde_json::{Value, json};

use super::*;
use crate::{InstanceId, Scheme, Status, fuzzing};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 400,
        rng_seed: RngSeed::Fixed(20),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
        Just("[fe80::1%eth0]".to_owned()),
        "[a-z][a-z0-9_-]{0,10}(\\.[a-z0-9-]{1,8}){0,2}",
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let scheme = select(vec!["grpc", "grpcs", "http", "https", "tcp", "tri", "h2c+x"]);
    (scheme, host(), 1..=u16::MAX)
        .prop_map(|(scheme, host, port)| format!("{scheme}://{host}:{port}").parse().unwrap())
}

/// Letters, dots and slashes mostly; now and then anything that a name may hold.
fn service() -> impl Strategy<Value = ServiceName> {
    prop_oneof!["[a-z]{1,8}([./-][a-zA-Z0-9]{1,6}){0,3}", "[^/\\s\\p{C}]{1,12}(/[^/\\s\\p{C}]{1,5})?"]
        .prop_filter_map("a service name", |name| ServiceName::new(name).ok())
}

fn id() -> impl Strategy<Value = InstanceId> {
    prop_oneof!["[a-z0-9.:-]{1,12}", "[1-9][0-9]{0,17}", "[^/\\s\\p{C}]{1,12}"]
        .prop_filter_map("an id", |id| InstanceId::new(id).ok())
}

fn metadata_key() -> impl Strategy<Value = String> {
    let known = vec![
        "", "metadata", "weight", "zone", "Zone", "status", "addr", "version", "priority", "ttl", "mail",
        "group",
    ];
    prop_oneof![3 => "[a-z<>&]{1,6}", 1 => ".{0,6}", 1 => select(known).prop_map(str::to_owned)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => ".{0,12}", 1 => "[<>&=%+ \u{2028}\u{2029}\"\\\\\n\u{8}\u{0}é]{0,8}", 1 => "[1-9][0-9]{0,2}", 1 => "true"]
}

fn instance() -> impl Strategy<Value = Instance> {
    let identity = (service(), option::of(id()), vec(endpoint(), 1..3));
    let weight = prop_oneof![3 => Just(100), 1 => Just(0), 2 => any::<u32>()];
    let said = (
        weight,
        option::of(text()),
        option::of(text()),
        select(vec![Status::Up, Status::Draining, Status::Down]),
    );
    let metadata = proptest::collection::btree_map(metadata_key(), text(), 0..4);
    (identity, said, metadata).prop_map(
        |((service, id, mut endpoints), (weight, zone, version, status), metadata)| {
            let mut instance = Instance::new(service, endpoints.remove(0));
            for endpoint in endpoints {
                instance = instance.with_endpoint(endpoint);
            }
            instance.id = id.unwrap_or(instance.id);
            Instance { weight, zone, version, status, metadata, ..instance }
        },
    )
}

/// What of `instance` a layout says that it carries.
fn within(carries: Carries, instance: &Instance) -> Instance {
    let all = instance.clone();
    let mut primary = all.endpoints.primary().clone();
    if !carries.contains(Carries::SCHEME) {
        primary.scheme = Scheme::Grpc;
    }
    let mut rest = Instance::new(all.service, primary);
    if carries.contains(Carries::ENDPOINTS) {
        rest.endpoints = all.endpoints;
    }
    if carries.contains(Carries::ID) {
        rest.id = all.id;
    }
    if carries.contains(Carries::WEIGHT) {
        rest.weight = all.weight.max(1);
    }
    if carries.contains(Carries::ZONE) {
        rest.zone = all.zone;
    }
    if carries.contains(Carries::VERSION) {
        rest.version = all.version;
    }
    if carries.contains(Carries::STATUS) {
        rest.status = all.status;
    }
    if carries.contains(Carries::METADATA) {
        let reserved = ["addr", "status", "version", "weight", "zone"];
        rest.metadata =
            all.metadata.into_iter().filter(|(key, _)| !reserved.contains(&key.as_str())).collect();
    }
    rest
}

/// JSON made of the words of all formats, so that it gets past the first look.
fn foreign_json() -> impl Strategy<Value = Value> {
    let names = vec![
        "Op",
        "Addr",
        "Metadata",
        "addr",
        "status",
        "version",
        "weight",
        "zone",
        "id",
        "name",
        "metadata",
        "endpoints",
        "network",
        "address",
        "tags",
        "nodes",
        "host",
        "port",
        "priority",
        "text",
        "mail",
        "ttl",
        "targetstrip",
        "group",
        "service",
        "ADDRESS",
    ];
    let words = vec![
        "10.0.0.1:80",
        "[::1]:80",
        "s",
        "s 10.0.0.1:80",
        "grpc://a:1?isSecure=true",
        "",
        "healthy",
        "1",
        "a",
    ];
    let leaf = prop_oneof![
        4 => select(words).prop_map(Value::from),
        1 => text().prop_map(Value::from),
        2 => (-2i64..200).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let name = prop_oneof![8 => select(names.clone()).prop_map(str::to_owned), 1 => metadata_key()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_is_read_back_but_for_what_is_reported_as_lost(instance in instance()) {
        for layout in fuzzing::all_layouts() {
            fuzzing::check_round_trip(&*layout, &instance);
        }
    }

    #[test]
    fn nothing_is_lost_of_what_a_layout_carries(instance in instance()) {
        for layout in fuzzing::all_layouts() {
            let instance = within(layout.carries(), &instance);
            if let Ok(encoded) = layout.encode(&instance, fuzzing::LEASE) {
                let lost: Vec<_> = encoded.lost.into_iter().filter(|field| *field != Field::Service).collect();
                prop_assert_eq!(&lost, &[], "{:?}", layout);
                fuzzing::check_round_trip(&*layout, &instance);
            } else {
                prop_assert!(["fields", "skydns"].contains(&layout.name()), "{:?}", layout);
            }
        }
    }

    #[test]
    fn h26_a_span_has_no_key_of_a_longer_name(instance in instance(), more in "[a-z0-9]{1,6}") {
        let longer = ServiceName::new(format!("{}{more}", instance.service)).unwrap();
        for layout in fuzzing::all_layouts() {
            let spans = layout.service_spans(&instance.service);
            let Ok(encoded) = layout.encode(&Instance { service: longer.clone(), ..instance.clone() }, 1) else { continue };
            for entry in &encoded.entries {
                prop_assert!(!spans.iter().any(|span| span.contains(&entry.key)), "{:?}", layout);
            }
        }
    }

    #[test]
    fn arbitrary_keys_and_values_do_no_harm(data in vec(any::<u8>(), 0..300)) {
        fuzzing::layouts(&data);
        fuzzing::values(&data);
    }

    #[test]
    fn arbitrary_texts_do_no_harm(text in "[ -~]{0,40}|(grpc|tri|://|%2F|%3A|[:/?@\\[\\]&=a1.]){0,20}") {
        fuzzing::values(text.as_bytes());
        let key = text.len().min(255);
        fuzzing::layouts(&[&[u8::try_from(key).unwrap()], text.as_bytes(), b"a:1"].concat());
    }

    #[test]
    fn h27_foreign_json_does_no_harm(value in foreign_json()) {
        fuzzing::values(value.to_string().as_bytes());
    }

    #[test]
    fn an_instance_is_its_json(instance in instance()) {
        let json = serde_json::to_vec(&instance).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Instance>(&json).unwrap(), instance);
        fuzzing::values(&json);
    }
}

#[test]
fn lists_of_layouts_keep_their_order_and_name_what_is_unknown() {
    let names = |list: &str| -> Vec<_> {
        parse_layouts(list, None).unwrap().iter().map(|layout| layout.name()).collect()
    };
    assert_eq!(names("kratos, grpc,kratos"), ["kratos", "grpc"]);
    for name in LAYOUT_NAMES {
        assert_eq!(layout(name, None).unwrap().name(), *name);
    }
    let error = parse_layouts("grpc,zookeeper", None).unwrap_err().to_string();
    assert!(error.starts_with("no layout is called \"zookeeper\"; there are: grpc, addr-key"), "{error}");
    assert!(parse_layouts("", None).is_err());
}

#[test]
fn catalogs_are_bounded_by_a_prefix_or_not_offered() {
    for layout in fuzzing::all_layouts() {
        let unbounded = ["fields", "go-zero"].contains(&layout.name());
        assert_eq!(layout.catalog_span().is_none(), unbounded, "{layout:?}");
    }
    assert_eq!(layout("grpc", Some("")).unwrap().catalog_span(), None);
}

#[test]
fn the_lease_is_needed_only_where_it_is_the_id() {
    let instance = Instance::new("s".parse().unwrap(), "a:1".parse().unwrap());
    for layout in fuzzing::all_layouts() {
        let refused = matches!(layout.encode(&instance, 0), Err(EncodeError::LeaseNeeded { .. }));
        assert_eq!(refused, layout.id_is_lease(), "{layout:?}");
    }
}

#[test]
fn port_0_is_never_written() {
    let mut instance = Instance::new("s".parse().unwrap(), "a:1".parse().unwrap());
    let nowhere = Endpoint { port: 0, ..instance.endpoints.primary().clone() };
    instance.endpoints.push(nowhere);
    for layout in fuzzing::all_layouts() {
        assert!(matches!(layout.encode(&instance, 1), Err(EncodeError::Port { .. })), "{layout:?}");
    }
}
