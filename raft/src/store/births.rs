//! What a data directory that began empty knows of its beginnings.
//!
//! A node whose data is gone has forgotten what it voted for and what it acknowledged; under its old
//! id it could undo both. So a directory that was claimed empty notes every incarnation that runs on
//! it, until the cluster has registered one of them. Where the cluster has registered another, there
//! was a directory before this one.
//!
//! Invariant: an incarnation is noted before it speaks to anybody. Deliberately absent: what follows
//! from a strange registration, which is for consensus to say.

use std::io;

use medic_proto::peer::v1 as pb;
use medic_state::BootId;

use super::{
    Store,
    disk::{Op, Table},
    log::{meta, put_meta},
    writer::Writer,
};
use crate::config::StartError;

const BIRTHS: &[u8] = b"births";
/// Incarnations noted: a node that starts more often without ever reaching its cluster needs its
/// operator anyway.
const MAX_BOOTS: usize = 1_024;

/// The incarnations that have run on a directory nobody has confirmed yet.
#[derive(Clone)]
pub(crate) struct Births {
    boots: Vec<BootId>,
    writer: Writer,
}

/// Written when an empty directory is claimed.
pub(super) fn claim_op() -> Op {
    put_meta(BIRTHS, &pb::Births::default())
}

impl Store {
    /// Notes this incarnation, durably. `None`: the cluster knows this directory.
    pub(crate) async fn born(&self, boot: BootId) -> Result<Option<Births>, StartError> {
        let noted = meta::<pb::Births>(&*self.disk, BIRTHS)?;
        // Builds that noted nothing may have claimed a directory and left it empty.
        let noted = noted.or_else(|| self.log.pristine().then(pb::Births::default));
        let Some(mut births) = noted else { return Ok(None) };
        births.boots.push(boot.0);
        let surplus = births.boots.len().saturating_sub(MAX_BOOTS);
        births.boots.drain(..surplus);
        self.writer.sync(vec![put_meta(BIRTHS, &births)]).await?;
        let boots = births.boots.into_iter().map(BootId).collect();
        Ok(Some(Births { boots, writer: self.writer.clone() }))
    }
}

impl Births {
    /// Whether the incarnation ran on this directory.
    pub(crate) fn include(&self, boot: BootId) -> bool {
        self.boots.contains(&boot)
    }

    /// The cluster has registered one of them: from here on the directory is an old one.
    pub(crate) async fn confirm(&self) -> io::Result<()> {
        let mut to = BIRTHS.to_vec();
        to.push(0);
        let op = Op::DeleteRange { table: Table::Meta, from: BIRTHS.to_vec(), to };
        self.writer.sync(vec![op]).await
    }
}
