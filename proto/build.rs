//! Generates the message and service types from the `.proto` files, without a protoc binary.
//!
//! Messages of the control API (`medic.v1`) can also be serialized as JSON or YAML, for people and
//! programs: names in camel case, enum fields by name (`awaiting-approval`), times as RFC 3339. As
//! prost keeps enum fields as numbers, every such field gets a `serialize_with` here.

use std::path::Path;

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const FILES: [&str; 17] = [
    "medic/fleet/v1/fleet.proto",
    "medic/peer/v1/observers.proto",
    "medic/peer/v1/peer.proto",
    "medic/peer/v1/telemetry.proto",
    "medic/v1/common.proto",
    "medic/v1/incidents.proto",
    "medic/v1/decisions.proto",
    "medic/v1/remediations.proto",
    "medic/v1/approvals.proto",
    "medic/v1/manifests.proto",
    "medic/v1/safety.proto",
    "medic/v1/predictions.proto",
    "medic/v1/health.proto",
    "medic/v1/detection.proto",
    "medic/v1/cluster.proto",
    "medic/v1/audit.proto",
    "medic/v1/watch.proto",
];

/// Enums whose names are written in snake case, as everywhere else in the product.
const SNAKE_CASE: [&str; 1] = [".medic.v1.Route"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: two checkouts may share what was built.
    let root = std::env::var("CARGO_MANIFEST_DIR")?;
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, [&root])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    let mut builder =
        tonic_prost_build::configure().build_transport(false).bytes(".").btree_map(".");
    builder = serializable(builder, &descriptors);
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// Adds what lets `medic.v1` be written as JSON.
fn serializable(
    mut builder: tonic_prost_build::Builder,
    descriptors: &FileDescriptorSet,
) -> tonic_prost_build::Builder {
    let files = descriptors.file.iter().filter(|file| file.package() == "medic.v1");
    for file in files {
        for message in &file.message_type {
            builder = message_attributes(builder, message);
        }
        for named in &file.enum_type {
            let path = format!(".medic.v1.{}", named.name());
            let case =
                if SNAKE_CASE.contains(&path.as_str()) { "snake_case" } else { "kebab-case" };
            let attribute =
                format!("#[derive(serde::Serialize)]\n#[serde(rename_all = \"{case}\")]");
            builder = builder.type_attribute(path, attribute);
        }
    }
    builder
}

fn message_attributes(
    mut builder: tonic_prost_build::Builder,
    message: &DescriptorProto,
) -> tonic_prost_build::Builder {
    let path = format!(".medic.v1.{}", message.name());
    let derive = "#[derive(serde::Serialize)]\n#[serde(rename_all = \"camelCase\")]";
    // Also reaches the oneofs within.
    builder = builder.type_attribute(&path, derive);
    for field in &message.field {
        if let Some(with) = serializer(field) {
            let attribute = format!("#[serde(serialize_with = \"{with}\")]");
            builder = builder.field_attribute(format!("{path}.{}", field.name()), attribute);
        }
    }
    builder
}

/// The function that writes a field which serde could not write well by itself.
fn serializer(field: &FieldDescriptorProto) -> Option<String> {
    let repeated = field.label() == Label::Repeated;
    let name = field.type_name();
    match field.r#type() {
        Type::Message if name == ".google.protobuf.Timestamp" && !repeated => {
            Some("crate::json::time".to_owned())
        }
        Type::Enum if !repeated => {
            let local = name.rsplit('.').next().unwrap_or(name);
            Some(format!("crate::json::name::<{local}, _>"))
        }
        _ => None,
    }
}
