//! Names, numbers and types are etcd's. `data/fields.txt` was made from etcd's own definitions, not from ours:
//!
//! ```text
//! message.field number type              "repeated" before the type, "oneof name" after it
//! enum.VALUE number enum
//! message name
//! /service/method rpc request response   "stream " before what is streamed
//! ```

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use waypost_proto::{
    FILE_DESCRIPTOR_SET,
    etcdserverpb::{Compare, Member, WatchResponse, compare::TargetUnion},
    mvccpb::{Event, KeyValue, event::EventType},
};

const ETCD: &str = include_str!("data/fields.txt");

#[test]
fn definitions_are_those_of_etcd() {
    let etcd: BTreeSet<String> = ETCD.lines().map(str::to_owned).collect();
    let ours =
        definitions(&FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set decodes"));
    let wrong: Vec<&String> = ours.difference(&etcd).collect();
    let missing: Vec<&String> = etcd.difference(&ours).collect();
    assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:#?}\nmissing: {missing:#?}");
}

/// The generated code, rather than the descriptors, against bytes written by hand.
#[test]
fn generated_code_writes_the_numbers_of_the_definitions() {
    let response = WatchResponse {
        watch_id: 3,
        events: vec![Event {
            r#type: EventType::Delete.into(),
            kv: Some(KeyValue { key: "k".into(), mod_revision: 9, ..KeyValue::default() }),
            prev_kv: None,
        }],
        ..WatchResponse::default()
    };
    assert_eq!(response.encode_to_vec(), [0x10, 3, 0x5a, 9, 0x08, 1, 0x12, 5, 0x0a, 1, b'k', 0x18, 9]);

    let compare = Compare {
        key: "k".into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        range_end: "l".into(),
        ..Compare::default()
    };
    assert_eq!(compare.encode_to_vec(), [0x1a, 1, b'k', 0x28, 0, 0x82, 0x04, 1, b'l']);

    let member = Member {
        peer_urls: vec!["p".into()],
        client_urls: vec!["c".into(), "d".into()],
        ..Member::default()
    };
    assert_eq!(member.encode_to_vec(), [0x1a, 1, b'p', 0x22, 1, b'c', 0x22, 1, b'd']);
}

fn definitions(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        file.message_type.iter().for_each(|message| add_message(&mut lines, package, message));
        file.enum_type.iter().for_each(|enumeration| add_enum(&mut lines, package, enumeration));
        for service in &file.service {
            let path = format!("/{package}.{}", service.name());
            lines.extend(service.method.iter().map(|method| format!("{path}/{}", rpc(method))));
        }
    }
    lines
}

fn add_message(lines: &mut BTreeSet<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    lines.extend(message.field.iter().map(|field| format!("{name}.{}", field_text(message, field))));
    message.nested_type.iter().for_each(|nested| add_message(lines, &name, nested));
    message.enum_type.iter().for_each(|enumeration| add_enum(lines, &name, enumeration));
}

fn add_enum(lines: &mut BTreeSet<String>, scope: &str, enumeration: &EnumDescriptorProto) {
    let name = format!("{scope}.{}", enumeration.name());
    lines.extend(
        enumeration.value.iter().map(|value| format!("{name}.{} {} enum", value.name(), value.number())),
    );
}

fn field_text(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let oneof = field
        .oneof_index
        .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?))
        .map_or(String::new(), |oneof| format!(" oneof {}", oneof.name()));
    format!("{} {} {repeated}{kind}{oneof}", field.name(), field.number())
}

fn rpc(method: &MethodDescriptorProto) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    format!(
        "{} rpc {}{} {}{}",
        method.name(),
        stream(method.client_streaming()),
        method.input_type().trim_start_matches('.'),
        stream(method.server_streaming()),
        method.output_type().trim_start_matches('.'),
    )
}
