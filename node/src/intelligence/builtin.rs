//! The built-in playbooks: ordinary manifests, embedded. They become part of a cluster only when
//! somebody applies them, and are then theirs to change.

/// Each playbook's file name and text.
pub const PLAYBOOKS: [(&str, &str); 16] = [
    ("fail-over-to-standby.yaml", include_str!("../../playbooks/fail-over-to-standby.yaml")),
    (
        "reconnect-isolated-instance.yaml",
        include_str!("../../playbooks/reconnect-isolated-instance.yaml"),
    ),
    (
        "recycle-leaking-instances.yaml",
        include_str!("../../playbooks/recycle-leaking-instances.yaml"),
    ),
    ("recycle-service.yaml", include_str!("../../playbooks/recycle-service.yaml")),
    (
        "redeploy-tampered-instance.yaml",
        include_str!("../../playbooks/redeploy-tampered-instance.yaml"),
    ),
    (
        "relieve-saturated-instance.yaml",
        include_str!("../../playbooks/relieve-saturated-instance.yaml"),
    ),
    ("relieve-filling-disk.yaml", include_str!("../../playbooks/relieve-filling-disk.yaml")),
    ("renew-certificate.yaml", include_str!("../../playbooks/renew-certificate.yaml")),
    (
        "renew-ending-certificate.yaml",
        include_str!("../../playbooks/renew-ending-certificate.yaml"),
    ),
    ("restart-before-failure.yaml", include_str!("../../playbooks/restart-before-failure.yaml")),
    (
        "restart-slowing-instance.yaml",
        include_str!("../../playbooks/restart-slowing-instance.yaml"),
    ),
    ("restart-crashed-service.yaml", include_str!("../../playbooks/restart-crashed-service.yaml")),
    ("restart-faulty-instance.yaml", include_str!("../../playbooks/restart-faulty-instance.yaml")),
    ("restart-hung-service.yaml", include_str!("../../playbooks/restart-hung-service.yaml")),
    ("restart-with-approval.yaml", include_str!("../../playbooks/restart-with-approval.yaml")),
    ("revert-configuration.yaml", include_str!("../../playbooks/revert-configuration.yaml")),
];

/// All of them as one bundle of YAML documents, ready to be applied.
#[must_use]
pub fn manifests() -> String {
    PLAYBOOKS.iter().map(|(_, text)| format!("---\n{}\n", text.trim_end())).collect()
}
