//! What can be typed about clusters themselves: making one, its certificates, members, audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use medic_state::Millis;

use super::{Connect, OutputArgs};

#[derive(Debug, Args)]
#[allow(missing_docs)]
pub struct InitArgs {
    /// Name and identity of the cluster
    #[arg(long)]
    pub cluster: String,
    /// Directory to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    pub nodes: u32,
    /// Host of each node; without it all run on this machine
    #[arg(long, value_delimiter = ',', value_name = "HOST,…")]
    pub hosts: Vec<String>,
    /// Region of each node; the last serves for the rest
    #[arg(long, value_delimiter = ',', value_name = "REGION,…")]
    pub regions: Vec<String>,
    /// Agents to make certificates for
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub agents: Vec<String>,
    /// Users to make certificates for; the first becomes admin
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", default_value = "admin")]
    pub users: Vec<String>,
    /// First port: API, then peer, then HTTP
    #[arg(long, default_value_t = 7440)]
    pub base_port: u16,
    /// Days the certificates are good for
    #[arg(long, default_value_t = 365)]
    pub days: u32,
    /// Folder on every host for the data of its node or agent; without it beside the configuration
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum CertsCommand {
    /// Make a certificate for one more node, agent or user
    #[command(after_help = "Examples:
  medic certs issue --dir ./demo --agent host-d --nodes 10.0.0.1:7440,10.0.0.2:7440
  medic certs issue --dir ./demo --user carol
  medic certs issue --dir ./demo --node 4 --host m4.example.com    then: medic serve, medic cluster add")]
    Issue(IssueArgs),
    /// Show certificates and how long they last
    #[command(
        after_help = "Examples:\n  medic certs show ./demo\n  medic certs show ./demo/nodes/node-1.crt"
    )]
    Show {
        /// Certificate files, or the directory that `medic init` made
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Replace certificates that end soon, or those named; running processes notice by themselves
    #[command(after_help = "Examples:
  medic certs renew --dir ./demo                 those that end within 30 days
  medic certs renew --dir ./demo node-1 host-a")]
    Renew {
        /// Directory that `medic init` made
        #[arg(long)]
        dir: PathBuf,
        /// Names; none: all that end soon
        names: Vec<String>,
        /// What is soon
        #[arg(long, default_value = "30d")]
        within: Millis,
        /// Days the new ones are good for
        #[arg(long, default_value_t = 365)]
        days: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub struct IssueArgs {
    /// Directory that `medic init` made
    #[arg(long)]
    pub dir: PathBuf,
    /// For this node number; a configuration with which it joins is written too
    #[arg(long, group = "who", value_name = "NUMBER")]
    pub node: Option<u32>,
    /// For this agent; its configuration is written too
    #[arg(long, group = "who", value_name = "NAME")]
    pub agent: Option<String>,
    /// For this user; a context is added to DIR/medic.toml
    #[arg(long, group = "who", value_name = "NAME")]
    pub user: Option<String>,
    /// Hosts that a node is dialled under; the first is the one it tells the others
    #[arg(long = "host", value_delimiter = ',', value_name = "HOST,…")]
    pub hosts: Vec<String>,
    /// First port of a node: API, then peer, then HTTP; default: what follows from the others'
    #[arg(long, requires = "node")]
    pub base_port: Option<u16>,
    /// API addresses of the nodes, for an agent or a user; default: those of DIR/medic.toml
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub nodes: Vec<String>,
    /// Days it is good for
    #[arg(long, default_value_t = 365)]
    pub days: u32,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum ClusterCommand {
    /// Members, leader, fence, how far each has come
    #[command(after_help = "Example:\n  medic cluster status")]
    Status(Connect),
    /// Add a node as a learner and wait until it has caught up
    #[command(after_help = "Example:\n  medic cluster add 4 m4.example.com:7441")]
    Add {
        /// Its number, never used before
        node: medic_state::NodeId,
        /// `host:port` of its peer port
        peer_addr: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a learner a voter
    #[command(after_help = "Example:\n  medic cluster promote 4")]
    Promote {
        /// Its number
        node: medic_state::NodeId,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove a member; its number is never used again
    #[command(after_help = "Example:\n  medic cluster remove 2")]
    Remove {
        /// Its number
        node: medic_state::NodeId,
        #[command(flatten)]
        connect: Connect,
    },
    /// Let a node watch nothing more: others get its shards, and leadership if it has it
    ///
    /// It goes on voting, and answers as before. Waits until its shards and leadership are gone.
    #[command(after_help = "Examples:
  medic cluster drain 2                before work on its machine; then stop it
  medic cluster drain 2 --undo         it may watch and lead again")]
    Drain {
        /// Its number
        node: medic_state::NodeId,
        /// Take it back
        #[arg(long)]
        undo: bool,
        /// Wait at most so long until its shards and leadership are gone; 0s: not at all
        #[arg(long, default_value = "30s", value_name = "TIME", conflicts_with = "undo")]
        wait: Millis,
        #[command(flatten)]
        connect: Connect,
    },
    /// Hand leadership over
    #[command(after_help = "Example:\n  medic cluster transfer 3")]
    Transfer {
        /// To this voter
        node: medic_state::NodeId,
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum AuditCommand {
    /// List links of the chain, the newest first
    #[command(after_help = "Examples:
  medic audit list --incident INC-42 --oldest-first
  medic audit list -l 'principal=\"user:ann\"' --limit 20
  medic audit list --after 1200          on from there, oldest first")]
    List {
        /// Only about this incident
        #[arg(long)]
        incident: Option<String>,
        /// Only those that match; may be repeated
        #[arg(short = 'l', long = "match", value_name = "MATCHER")]
        matchers: Vec<String>,
        /// Begin with the oldest
        #[arg(long)]
        oldest_first: bool,
        /// Only after this position of the chain, oldest first
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// Only of the last so long
        #[arg(long, value_name = "TIME")]
        since: Option<Millis>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        connect: Connect,
    },
    /// Write the whole chain as JSON lines, for verification elsewhere
    #[command(after_help = "Example:\n  medic audit export > audit.jsonl")]
    Export(Connect),
    /// Compute the whole chain again and name the first bad link; needs no cluster
    #[command(after_help = "Examples:
  medic audit verify --file audit.jsonl
  medic audit verify --dir ./demo/data/node-1      of a node that is stopped")]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
#[allow(missing_docs)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct VerifyArgs {
    /// Export of `medic audit export`
    #[arg(long, group = "source")]
    pub file: Option<PathBuf>,
    /// Data directory of a stopped node
    #[arg(long, group = "source")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum ContextCommand {
    /// Show the contexts of the file
    List {
        /// File of contexts
        #[arg(long, env = "MEDIC_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make one the current one
    #[command(after_help = "Example:\n  medic context use admin")]
    Use {
        /// Its name
        name: String,
        /// File of contexts
        #[arg(long, env = "MEDIC_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
}
