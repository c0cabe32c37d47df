//! What is told beside a finding: what is new in the instance's log, and what its cluster says of it.

use medic_state::symptom::{Symptom, Target};

use crate::detection::{intake::kube::book::EventNews, senses::Senses};

/// Adds what there is to a symptom, as words and as labels.
pub(super) fn add(symptom: &mut Symptom, senses: &dyn Senses, target: &Target) {
    if let Some(news) = senses.log_news(target) {
        tell_of_log(symptom, &news);
    }
    tell_of_events(symptom, senses.cluster_news(target));
}

/// A new error in the log is evidence, all the more when something was changed just before.
fn tell_of_log(symptom: &mut Symptom, news: &str) {
    let since = symptom.labels.get("config_changed_ms").and_then(|ms| ms.parse::<u64>().ok());
    let after = since.map_or_else(String::new, |ms| {
        format!(" (its configuration changed {} s ago)", ms / 1_000)
    });
    symptom.summary.push_str(&format!("; new error in its log{after}: {news}"));
    symptom.labels.insert("new_log_error".to_owned(), news.to_owned());
}

fn tell_of_events(symptom: &mut Symptom, news: EventNews) {
    if let Some((reason, text)) = news.warning {
        symptom.summary.push_str(&format!("; Kubernetes warns: {text}"));
        symptom.labels.insert("kubernetes_warning".to_owned(), reason);
    }
    if let Some(change) = news.change {
        symptom.labels.insert("kubernetes_change".to_owned(), change);
    }
}
