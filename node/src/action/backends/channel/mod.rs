//! Channels: how a message reaches people, and what the answer says about whether it did.
//!
//! ```text
//!   Telling ─► Channels ─┬ webhook    JSON, Idempotency-Key
//!                        ├ slack      JSON of an incoming webhook
//!                        ├ pagerduty  Events API v2: trigger, acknowledge, resolve; dedup_key
//!                        └ email      SMTP
//! ```
//!
//! One call, one sending; whether it is sent again is the law's business. Nothing that is a secret
//! (a routing key, a password, the URL of a chat) stands in an outcome or in a log line.

mod email;
mod http;
mod payload;

use std::path::PathBuf;

use medic_state::{
    IncidentId, Timestamp,
    manifest::{ChannelSpec, SlackSpec},
    notice::{Delivery, Telling},
    symptom::Target,
};

use self::{email::Mailer, http::Poster};
use crate::secrets::Secrets;

/// What a message says beside its notices: about the incident of the first.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What is ill.
    pub target: Option<Target>,
    /// What judgement takes it for.
    pub class: String,
    /// Since when.
    pub opened_at: Timestamp,
}

/// The channels of one node.
#[derive(Clone, Debug)]
pub struct Channels {
    cluster: String,
    secrets: Secrets,
    poster: Poster,
    mailer: Mailer,
}

impl Channels {
    /// Of a cluster, with the folder in which this node keeps secrets.
    #[must_use]
    pub fn new(cluster: String, secrets_dir: Option<PathBuf>) -> Self {
        Self {
            cluster,
            secrets: Secrets::new(secrets_dir),
            poster: Poster::new(),
            mailer: Mailer::new(),
        }
    }

    /// Sends one message, once.
    pub async fn tell(&self, channel: &ChannelSpec, telling: &Telling, about: &About) -> Delivery {
        match channel {
            ChannelSpec::Webhook { url, rules: _ } => {
                let body = payload::webhook(&self.cluster, telling, about);
                let key = payload::key(&self.cluster, telling);
                self.poster.post(url, &body, Some(&key)).await
            }
            ChannelSpec::Slack(slack) => match self.slack_url(slack, telling) {
                Ok(url) => self.poster.post(&url, &payload::slack(telling), None).await,
                Err(error) => Delivery::Failed(error),
            },
            ChannelSpec::Pagerduty(pagerduty) => {
                let routing_key = match self.secrets.read(&telling.tenant, &pagerduty.routing_key) {
                    Ok(key) => key,
                    Err(error) => return Delivery::Failed(error.to_string()),
                };
                let url = pagerduty.url.as_deref().unwrap_or(payload::PAGERDUTY_URL);
                let body = payload::pagerduty(&self.cluster, &routing_key, telling, about);
                let key = payload::key(&self.cluster, telling);
                self.poster.post(url, &body, Some(&key)).await
            }
            ChannelSpec::Email(email) => {
                let password = match &email.password {
                    None => None,
                    Some(secret) => match self.secrets.read(&telling.tenant, secret) {
                        Ok(password) => Some(password),
                        Err(error) => return Delivery::Failed(error.to_string()),
                    },
                };
                self.mailer.send(&self.cluster, email, password, telling).await
            }
        }
    }

    fn slack_url(&self, slack: &SlackSpec, telling: &Telling) -> Result<String, String> {
        match (&slack.url, &slack.url_from) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(secret)) => {
                self.secrets.read(&telling.tenant, secret).map_err(|error| error.to_string())
            }
            (None, None) => Err("it has no URL".to_owned()),
        }
    }
}

/// The first notice's incident: what a message is filed under.
fn incident(telling: &Telling) -> Option<IncidentId> {
    telling.notices.first().map(|notice| notice.incident)
}

#[cfg(test)]
mod tests;
