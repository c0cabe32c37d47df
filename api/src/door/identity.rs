//! Who is at the other end: read from the verified certificate, and from nowhere else.
//!
//! `CN` is the name, `OU` one of `users`, `nodes`, `agents`, `O` the cluster.

use medic_state::{
    NodeId, Timestamp,
    rbac::{Principal, PrincipalKind},
};
use tonic::{Extensions, Request, Status, service::Routes};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Door;

/// A verified identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who, in the law's words.
    pub principal: Principal,
    /// The cluster its certificate is for.
    pub cluster: String,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

/// A certificate that verified but opens nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// None was presented.
    #[error("no client certificate was presented; this door needs one")]
    Missing,
    /// It cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// It lacks a part of the name.
    #[error("the client certificate has no {0}; `medic init` makes certificates that have")]
    Incomplete(&'static str),
    /// Its unit is none of ours.
    #[error("the certificate of `{name}` is for `{unit}`; known are users, nodes, agents")]
    UnknownUnit {
        /// Common name.
        name: String,
        /// Organizational unit.
        unit: String,
    },
    /// It names a node that cannot be.
    #[error("the certificate names the node `{0}`; a node is named node-<number>")]
    BadNode(String),
    /// It is for another cluster.
    #[error("the certificate of {principal} is for cluster `{found}`, this is `{expected}`")]
    WrongCluster {
        /// Who.
        principal: Principal,
        /// As it says.
        found: String,
        /// This one.
        expected: String,
    },
    /// Its kind is not admitted here.
    #[error("the certificate of {principal} does not open the {door} port")]
    WrongDoor {
        /// Who.
        principal: Principal,
        /// Which door.
        door: &'static str,
    },
}

impl BadCertificate {
    /// For metrics.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "no-certificate",
            Self::Unreadable(_) | Self::Incomplete(_) => "bad-certificate",
            Self::UnknownUnit { .. } | Self::BadNode(_) => "bad-identity",
            Self::WrongCluster { .. } => "wrong-cluster",
            Self::WrongDoor { .. } => "wrong-role",
        }
    }
}

impl Identity {
    /// Reads an identity from a DER certificate that was verified already.
    ///
    /// # Errors
    /// When it lacks a name, a cluster or a known kind.
    pub fn read(der: &[u8]) -> Result<Self, BadCertificate> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| BadCertificate::Unreadable(error.to_string()))?;
        let subject = certificate.subject();
        let name = only(subject.iter_common_name(), "common name (CN)")?;
        let unit = only(subject.iter_organizational_unit(), "organizational unit (OU)")?;
        let cluster = only(subject.iter_organization(), "organization (O)")?;
        let kind = match unit.as_str() {
            "users" => PrincipalKind::User,
            "nodes" => PrincipalKind::Node,
            "agents" => PrincipalKind::Agent,
            _ => return Err(BadCertificate::UnknownUnit { name, unit }),
        };
        let node = |name: &str| name.parse::<NodeId>().is_ok_and(|id| id.to_string() == name);
        if kind == PrincipalKind::Node && !node(&name) {
            return Err(BadCertificate::BadNode(name));
        }
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            principal: Principal { kind, name },
            cluster,
            serial: certificate.raw_serial_as_string(),
            not_after: Timestamp(seconds.saturating_mul(1_000)),
        })
    }

    /// Whether it may come in at this door.
    pub(super) fn admit(self, door: &Door) -> Result<Self, BadCertificate> {
        if self.cluster != door.cluster {
            return Err(BadCertificate::WrongCluster {
                principal: self.principal,
                found: self.cluster,
                expected: door.cluster.clone(),
            });
        }
        if !door.admits.contains(&self.principal.kind) {
            return Err(BadCertificate::WrongDoor { principal: self.principal, door: door.name });
        }
        Ok(self)
    }
}

/// The one value of an attribute: two would let two readers see two identities.
fn only<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    what: &'static str,
) -> Result<String, BadCertificate> {
    let first = values.next().and_then(|value| value.as_str().ok());
    match (first, values.next()) {
        (Some(text), None) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(BadCertificate::Incomplete(what)),
    }
}

/// Who sent a request.
///
/// # Errors
/// When the request did not come through a door.
pub fn identity_of<T>(request: &Request<T>) -> Result<&Identity, Status> {
    request.extensions().get::<Identity>().ok_or_else(|| {
        Status::unauthenticated("the request did not come through a door with client certificates")
    })
}

/// Who sent a request, in the law's words.
///
/// # Errors
/// As [`identity_of`].
pub fn principal_of(extensions: &Extensions) -> Result<Principal, Status> {
    extensions.get::<Identity>().map(|identity| identity.principal.clone()).ok_or_else(|| {
        Status::unauthenticated("the request did not come through a door with client certificates")
    })
}

/// The node that a connection belongs to; fits `medic_raft`'s identity check of peer routes.
///
/// # Errors
/// When it is no node, or did not come through a door.
pub fn node_identity(extensions: &Extensions) -> Result<Option<NodeId>, Status> {
    let principal = principal_of(extensions)?;
    let denied = || Status::permission_denied(format!("{principal} is no node of this cluster"));
    if principal.kind != PrincipalKind::Node {
        return Err(denied());
    }
    principal.name.parse().map(Some).map_err(|_| denied())
}

/// The node that sent a request.
///
/// # Errors
/// As [`node_identity`].
pub fn require_node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    node_identity(request.extensions())?
        .ok_or_else(|| Status::permission_denied("only nodes of this cluster may call this"))
}

/// Puts the law's principal beside the identity, for services that know nothing of doors.
pub(super) fn stamp(routes: Routes) -> Routes {
    let router = routes.into_axum_router().layer(axum::middleware::map_request(
        |mut request: axum::extract::Request| async move {
            let principal = request.extensions().get::<Identity>().map(|i| i.principal.clone());
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
            request
        },
    ));
    Routes::from(router)
}
