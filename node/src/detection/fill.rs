//! Placeholders of Service manifests, filled in per instance.

use medic_state::manifest::{InstanceSpec, ServiceSpec};

/// Fills in `${instance}`, `${service}`, `${port}`, `${host}` and `${config}` (path of the
/// configuration file, itself filled in). A placeholder that has no value, such as `${port}` of an
/// instance without one, stays as it is, so that whoever uses the text says what is wrong with it.
#[must_use]
pub fn fill(
    text: &str,
    service_name: &str,
    service: &ServiceSpec,
    instance: &InstanceSpec,
) -> String {
    let simple = |text: &str| {
        let text = text
            .replace("${instance}", &instance.name)
            .replace("${service}", service_name)
            .replace("${host}", &instance.host);
        match instance.port {
            Some(port) => text.replace("${port}", &port.to_string()),
            None => text,
        }
    };
    // `${config}` first: its path may hold the other placeholders, never itself.
    let path = service.process.as_ref().and_then(|process| process.config.as_ref());
    match path {
        Some(config) if text.contains("${config}") => {
            simple(&text.replace("${config}", &config.path))
        }
        _ => simple(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_placeholder_is_filled_and_a_missing_value_stays_visible() {
        let service: ServiceSpec = serde_json::from_str(
            r#"{"process":{"command":"/x","config":{"path":"/etc/${service}/${instance}.conf"}}}"#,
        )
        .unwrap();
        let mut instance: InstanceSpec =
            serde_json::from_str(r#"{"name":"a-1","host":"10.0.0.1","port":8080}"#).unwrap();
        let text = "${instance} ${service} ${host}:${port} ${config}";
        assert_eq!(fill(text, "a", &service, &instance), "a-1 a 10.0.0.1:8080 /etc/a/a-1.conf");
        instance.port = None;
        assert_eq!(fill("${port}", "a", &service, &instance), "${port}");
    }
}
