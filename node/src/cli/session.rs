//! One command's conversation with the cluster, as the user and in the tenant of its context.

use std::{future::Future, time::Duration};

use medic_api::client::{Client, ClientConfig, Services};
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::Millis;
use tonic::{Response, Status};

use super::{args::Connect, context, error::CliError};
use crate::security::{self, Unit};

/// A node that does not accept within this is passed over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A command gives up after this unless told otherwise; outlasts an election.
const PATIENCE: Millis = Millis::from_secs(20);

/// A user's way to the cluster.
pub(super) struct Session {
    client: Client,
    tenant: String,
}

impl Session {
    /// Reads the context and proves its certificate; talks to nobody yet.
    pub(super) fn open(connect: &Connect) -> Result<Self, CliError> {
        Self::open_with(connect, PATIENCE)
    }

    /// For a command that may well take longer.
    pub(super) fn open_with(connect: &Connect, patience: Millis) -> Result<Self, CliError> {
        Self::open_to(connect, None, connect.timeout.unwrap_or(patience))
    }

    /// To this node alone, whatever nodes the context names.
    pub(super) fn open_at(
        connect: &Connect,
        endpoint: String,
        patience: Millis,
    ) -> Result<Self, CliError> {
        Self::open_to(connect, Some(endpoint), patience)
    }

    fn open_to(
        connect: &Connect,
        endpoint: Option<String>,
        patience: Millis,
    ) -> Result<Self, CliError> {
        let (context, tenant) = context::choose(connect)?;
        let now = SystemClock.now();
        let material = security::load(&context.tls(), &context.cluster, Unit::Users, now)?;
        let [ca_pem, cert_pem, key_pem] = material.pem().clone();
        let config = ClientConfig {
            endpoints: endpoint.map_or(context.nodes, |one| vec![one]),
            ca_pem,
            cert_pem,
            key_pem,
            server_name: None,
            connect_timeout: CONNECT_PATIENCE,
            patience: patience.as_duration(),
        };
        let client = Client::lazy(&config).map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(Self { client, tenant })
    }

    /// The tenant to work in; empty: all.
    pub(super) fn tenant(&self) -> String {
        self.tenant.clone()
    }

    /// The tenant for things that belong to one.
    pub(super) fn one_tenant(&self) -> String {
        match self.tenant.as_str() {
            "" => medic_state::manifest::DEFAULT_TENANT.to_owned(),
            tenant => tenant.to_owned(),
        }
    }

    /// The client itself.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Makes a call on whichever node answers, with the same request however often it takes.
    pub(super) async fn ask<R, T, F>(
        &self,
        request: R,
        attempt: impl Fn(Services, R) -> F,
    ) -> Result<T, CliError>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        Ok(self.client.call(|api| attempt(api, request.clone())).await?.into_inner())
    }
}

/// A fresh request id.
pub(super) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
