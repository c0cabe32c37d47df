//! Predictions, how they turned out, and what is not known of them.

use medic_proto::v1 as pb;

use super::{
    Style, Table, span,
    words::{ms, plural, prediction_kind, target},
};

/// Predictions.
#[must_use]
pub fn predictions(items: &[pb::Prediction], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "TARGET",
        "KIND",
        "ABOUT",
        "CHANCE",
        "SURE",
        "IN",
        "BETWEEN",
        "WHY",
        "WHAT TO DO",
        "NODE",
    ]);
    for one in items {
        let at = ms(one.at.as_ref()).unwrap_or(now);
        let left = |after: u64| span((at + after).saturating_sub(now));
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let chance = percent(one.probability);
        table.row([
            target(one.target.as_ref()),
            prediction_kind(one.kind()),
            one.subject.clone(),
            if one.probability >= 0.5 { style.warn(&chance) } else { chance },
            percent(one.confidence),
            left(one.expected_ms),
            format!("{} and {}", left(one.earliest_ms), left(one.latest_ms)),
            one.factors.join("; "),
            one.actions.first().cloned().unwrap_or_default(),
            one.node.clone(),
        ]);
    }
    table.render(&style)
}

/// How predictions turned out.
#[must_use]
pub fn scores(items: &[pb::PredictionScore], style: Style) -> String {
    let mut table = Table::new([
        "KIND",
        "JUDGED",
        "CAME TRUE",
        "UNKNOWN",
        "BRIER",
        "CALIBRATION",
        "ON TIME",
        "SAID > CAME",
    ]);
    for one in items {
        let bins = one.calibration.iter().map(|bin| {
            format!("{:.0}>{:.0} % ({})", bin.said * 100.0, bin.came_true * 100.0, bin.count)
        });
        let judged = one.count > 0;
        let figure = |value: f64| if judged { format!("{value:.3}") } else { "-".to_owned() };
        let on_time = format!("{:.0} %", one.coverage * 100.0);
        table.row([
            prediction_kind(one.kind()),
            one.count.to_string(),
            one.came_true.to_string(),
            one.inconclusive.to_string(),
            figure(one.brier),
            figure(one.calibration_error),
            if one.came_true > 0 { on_time } else { "-".to_owned() },
            bins.collect::<Vec<_>>().join(", "),
        ]);
    }
    table.render(&style)
}

/// What an answer lacks.
#[must_use]
pub fn gap(gap: &pb::Gap) -> String {
    let about = match gap.shards.len() {
        0 => String::new(),
        count => format!(" ({} not known of)", plural(count, "shard")),
    };
    let who = if gap.node.is_empty() { String::new() } else { format!("{}: ", gap.node) };
    format!("partial: {who}{}{about}", gap.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::words::timestamp;

    /// 2026-11-18 14:02:10 UTC.
    const T: u64 = 1_795_010_530_000;

    #[test]
    fn predictions_tell_chance_time_and_reason() {
        let one = pb::Prediction {
            target: Some(pb::Target {
                tenant: "default".to_owned(),
                service: "users".to_owned(),
                instance: "users-1".to_owned(),
            }),
            kind: pb::PredictionKind::Capacity.into(),
            subject: "memory".to_owned(),
            probability: 0.93,
            confidence: 0.8,
            at: Some(timestamp(T)),
            expected_ms: 3_600_000,
            earliest_ms: 3_000_000,
            latest_ms: 4_200_000,
            factors: vec!["it rises".to_owned()],
            actions: vec!["recycle the instance".to_owned()],
            node: "node-2".to_owned(),
            ..Default::default()
        };
        // Ten minutes later there are ten minutes less.
        let text = predictions(&[one], T + 600_000, Style::new(false));
        for part in
            ["users/users-1", "capacity", "memory", "93 %", "50m", "40m", "it rises", "recycle"]
        {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        let bin = pb::CalibrationBin { from: 0.9, count: 4, said: 0.93, came_true: 0.75 };
        let kind = pb::PredictionKind::SecurityRisk.into();
        let judged =
            pb::PredictionScore { kind, count: 4, came_true: 3, brier: 0.19, ..Default::default() };
        let unknown = pb::PredictionScore { inconclusive: 2, ..judged.clone() };
        let unknown = pb::PredictionScore { count: 0, came_true: 0, brier: 0.0, ..unknown };
        let judged = pb::PredictionScore { calibration: vec![bin], ..judged };
        let text = scores(&[judged, unknown], Style::new(false));
        assert!(text.contains("security-risk") && text.contains("93>75 % (4)"), "{text}");
        assert!(
            text.lines().last().is_some_and(|line| line.contains(" - ")),
            "nothing is judged:\n{text}"
        );
        let reason = "it was last heard from 20 s ago".to_owned();
        let missing = pb::Gap { node: "node-3".to_owned(), shards: vec![1, 2], reason };
        let expected = "partial: node-3: it was last heard from 20 s ago (2 shards not known of)";
        assert_eq!(gap(&missing), expected);
    }
}
