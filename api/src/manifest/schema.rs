//! JSON Schema of the manifest envelope, for editors and for linting before `medic validate`.

use medic_state::manifest::{
    ChannelSpec, Kind, MaintenanceWindowSpec, Metadata, PlaybookSpec, PolicySpec, RoleBindingSpec,
    RoleSpec, ServiceSpec, SilenceSpec, SourceSpec, TenantSpec,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::API_VERSION;

/// The schema of one document (draft 2020-12): one branch per kind.
#[must_use]
pub fn schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let branches: Vec<Value> = Kind::ALL
        .iter()
        .map(|kind| {
            let spec = spec(*kind, &mut generator);
            branch(&kind.to_string(), &spec, &mut generator)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://medic/v1/manifest.json",
        "title": "Medic manifest",
        "oneOf": branches,
        "$defs": generator.take_definitions(true),
    })
}

/// The schema of one document of a kind that the cluster does not know, with `S` for its spec.
#[must_use]
pub fn schema_of<S: JsonSchema>(kind: &str) -> Value {
    let mut generator = SchemaGenerator::default();
    let spec = generator.subschema_for::<S>();
    let mut schema = branch(kind, &spec, &mut generator);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    schema
}

fn branch(kind: &str, spec: &Schema, generator: &mut SchemaGenerator) -> Value {
    json!({
        "title": kind,
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": kind },
            "metadata": generator.subschema_for::<Metadata>(),
            "spec": spec,
        },
    })
}

fn spec(kind: Kind, generator: &mut SchemaGenerator) -> Schema {
    match kind {
        Kind::Service => generator.subschema_for::<ServiceSpec>(),
        Kind::Playbook => generator.subschema_for::<PlaybookSpec>(),
        Kind::Policy => generator.subschema_for::<PolicySpec>(),
        Kind::Source => generator.subschema_for::<SourceSpec>(),
        Kind::Silence => generator.subschema_for::<SilenceSpec>(),
        Kind::MaintenanceWindow => generator.subschema_for::<MaintenanceWindowSpec>(),
        Kind::Role => generator.subschema_for::<RoleSpec>(),
        Kind::RoleBinding => generator.subschema_for::<RoleBindingSpec>(),
        Kind::Tenant => generator.subschema_for::<TenantSpec>(),
        Kind::Channel => generator.subschema_for::<ChannelSpec>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_branch_and_every_reference_a_definition() {
        let schema = schema();
        assert_eq!(schema["oneOf"].as_array().map(Vec::len), Some(Kind::ALL.len()));
        let text = schema.to_string();
        let mut references = 0;
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(!schema["$defs"][name].is_null(), "{name} is not defined");
            references += 1;
        }
        assert!(references > 10, "{references}");
        assert!(text.contains("maxUnavailable") && text.contains("\"http\""));
    }
}
