//! `Channel`: where people are told, of what, and how often.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rate;
use crate::{ids::Millis, notice::NoticeKind, symptom::Severity};

/// Where people are told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ChannelSpec {
    /// JSON is POSTed here, with an `Idempotency-Key`.
    #[n(0)]
    Webhook {
        /// The URL.
        #[n(0)]
        url: String,
        /// Of what it is told, and how often.
        #[n(1)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rules: Option<ChannelRules>,
    },
    /// An incoming webhook of Slack, or of what takes the same JSON (Mattermost, Rocket.Chat).
    #[n(1)]
    Slack(#[n(0)] SlackSpec),
    /// PagerDuty, or what takes its Events API v2.
    #[n(2)]
    Pagerduty(#[n(0)] PagerdutySpec),
    /// Mail, by SMTP.
    #[n(3)]
    Email(#[n(0)] EmailSpec),
}

/// See [`ChannelSpec::Slack`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlackSpec {
    /// The URL. It is a secret: better name a place where it stands.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where the URL stands.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretRef>,
    /// Of what it is told, and how often.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<ChannelRules>,
}

/// See [`ChannelSpec::Pagerduty`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PagerdutySpec {
    /// Where the routing key stands.
    #[n(0)]
    pub routing_key: SecretRef,
    /// The events endpoint. Absent: PagerDuty's own.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of what it is told, and how often.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<ChannelRules>,
}

/// See [`ChannelSpec::Email`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmailSpec {
    /// `host:port` of the mail server.
    #[n(0)]
    pub server: String,
    /// How the connection is protected.
    #[n(1)]
    #[serde(default)]
    pub tls: EmailTls,
    /// User name at the mail server. Absent: it asks for none.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the password stands.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Sender.
    #[n(4)]
    pub from: String,
    /// Receivers.
    #[n(5)]
    pub to: Vec<String>,
    /// Of what it is told, and how often.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<ChannelRules>,
}

/// How a connection to a mail server is protected.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum EmailTls {
    /// Plain first, TLS after `STARTTLS`, which the server must offer (port 587).
    #[n(0)]
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    #[n(1)]
    Implicit,
    /// None: to a relay on the same host alone.
    #[n(2)]
    None,
}

/// Where a secret stands: on every node, never in the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretRef {
    /// In this environment variable of the node, whose name begins with `MEDIC_SECRET_`. For
    /// channels of tenant `default` alone.
    #[n(0)]
    Env(#[n(0)] String),
    /// In this file, in the folder of the channel's tenant in the node's `secrets_dir`.
    #[n(1)]
    File(#[n(0)] String),
}

/// Of what a channel is told, and how often.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ChannelRules {
    /// Incidents below this severity are none of its business.
    #[n(0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<Severity>,
    /// Prometheus matchers over the labels of the incident's symptoms: all must match one of them.
    #[n(1)]
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
    /// Tell also when it is over. Absent: yes for `pagerduty` and `slack`.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_resolved: Option<bool>,
    /// Tell also when somebody has acknowledged it. Absent: yes for `pagerduty`.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_acknowledged: Option<bool>,
    /// Messages within a time; what is more is summed up in one. Absent: 60/10m.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Rate>,
}

/// As many pages as somebody can read in that time, and more than incidents worth a page each.
const DEFAULT_LIMIT: Rate = Rate { count: 60, per: Millis::from_secs(600) };

impl ChannelSpec {
    /// Its rules, as declared.
    #[must_use]
    pub const fn rules(&self) -> Option<&ChannelRules> {
        match self {
            Self::Webhook { rules, .. } => rules.as_ref(),
            Self::Slack(slack) => slack.rules.as_ref(),
            Self::Pagerduty(pagerduty) => pagerduty.rules.as_ref(),
            Self::Email(email) => email.rules.as_ref(),
        }
    }

    /// Whether its receiver recognises a message that is sent again.
    #[must_use]
    pub const fn recognises_repeats(&self) -> bool {
        match self {
            Self::Webhook { .. } | Self::Pagerduty(_) => true,
            Self::Slack(_) | Self::Email(_) => false,
        }
    }

    /// Whether it is told when an incident is over.
    #[must_use]
    pub fn sends_resolved(&self) -> bool {
        let default = matches!(self, Self::Pagerduty(_) | Self::Slack(_));
        self.rules().and_then(|rules| rules.send_resolved).unwrap_or(default)
    }

    /// Whether it is told when somebody has acknowledged an incident.
    #[must_use]
    pub fn sends_acknowledged(&self) -> bool {
        let default = matches!(self, Self::Pagerduty(_));
        self.rules().and_then(|rules| rules.send_acknowledged).unwrap_or(default)
    }

    /// Whether such a notice ends noise instead of making it: it is sent by itself, whatever the rate.
    #[must_use]
    pub fn quiets(&self, kind: NoticeKind) -> bool {
        matches!(self, Self::Pagerduty(_)) && kind != NoticeKind::NeedsHuman
    }

    /// How many messages it takes.
    #[must_use]
    pub fn limit(&self) -> Rate {
        self.rules().and_then(|rules| rules.limit).unwrap_or(DEFAULT_LIMIT)
    }

    /// Whether a build from before version 5 could not read it.
    pub(crate) fn is_new(&self) -> bool {
        !matches!(self, Self::Webhook { rules: None, .. })
    }
}
