//! The steps of a plan: what was done to what, when, by which leader under which fence.

use medic_proto::v1 as pb;

use super::{
    Style,
    page::Page,
    span,
    words::{clock, ms, safety, step_status, target},
};

/// Steps of a quiet plan that are shown one by one; of more, the middle is counted.
const STEPS: usize = 12;

/// One paragraph per step.
pub(super) fn steps(page: &mut Page, steps: &[pb::Step], label: usize, style: Style) {
    for (i, step) in steps.iter().enumerate() {
        let hidden =
            steps.len() > STEPS && i >= STEPS / 2 && i + STEPS / 2 < steps.len() && is_quiet(step);
        if !hidden {
            one(page, step, label, style);
        } else if i == STEPS / 2 {
            page.text(2 + label, &format!("… {} more like these …", steps.len() - STEPS));
        }
    }
}

/// Started once, done once, by the same leader: one line tells it all.
fn is_quiet(step: &pb::Step) -> bool {
    matches!(step.history.as_slice(), [start, end]
        if start.text == "started" && end.text == "done" && start.fence == end.fence)
}

fn one(page: &mut Page, step: &pb::Step, label: usize, style: Style) {
    let action = step.action.as_ref().map(action).unwrap_or_default();
    let through = if step.agent.is_empty() { "the leader".to_owned() } else { step.agent.clone() };
    let begun = ms(step.started_at.as_ref());
    let at = begun.map(clock).unwrap_or_default();
    let on = style.name(&target(step.target.as_ref()));
    let mut text = format!(
        "{}: {action} on {on} through {through}: {}",
        step.name,
        paint(style, step.status())
    );
    // From start to undo it was mostly watched: the history below has the times of each.
    let undone = matches!(step.status(), pb::StepStatus::Undone | pb::StepStatus::UndoFailed);
    if let (Some(begun), Some(ended), false) = (begun, ms(step.ended_at.as_ref()), undone) {
        text += &format!(" in {}", span(ended.saturating_sub(begun)));
    }
    if is_quiet(step) {
        let start = &step.history[0];
        text += &format!(" ({} leading under fence-{})", start.node, start.fence);
        page.labelled(2, &at, label, &text);
        return;
    }
    page.labelled(2, &at, label, &text);
    let mut fence = None;
    for event in &step.history {
        let when = ms(event.at.as_ref()).map(clock).unwrap_or_default();
        let taken_over = fence.replace(event.fence).is_some_and(|before| before != event.fence);
        let by = format!("{} under fence-{}", event.node, event.fence);
        let by = if taken_over { style.warn(&format!("{by}, who took over")) } else { by };
        page.labelled(4 + label, &when, 12, &format!("{} – {by}", event.text));
    }
    if step.intent.is_some() {
        let class = safety(step.safety());
        page.text(
            4 + label,
            &format!("its outcome is not known yet; a new leader may act on it as {class}"),
        );
    }
    let troubled = matches!(
        step.status(),
        pb::StepStatus::Failed | pb::StepStatus::Unknown | pb::StepStatus::UndoFailed
    );
    if troubled && !step.evidence.is_empty() {
        let evidence: Vec<String> =
            step.evidence.iter().map(|(name, value)| format!("{name} {value}")).collect();
        page.text(4 + label, &format!("evidence: {}", evidence.join(", ")));
    }
    if let (
        Some(undo),
        pb::StepStatus::Undoing | pb::StepStatus::Undone | pb::StepStatus::UndoFailed,
    ) = (&step.undo, step.status())
    {
        page.text(4 + label, &format!("undone by {}", self::action(undo)));
    }
}

/// `config.restore(hash=9f2c…)`, long values cut.
pub(super) fn action(action: &pb::Action) -> String {
    const VALUE: usize = 24;
    if action.params.is_empty() {
        return action.name.clone();
    }
    let params: Vec<String> = action
        .params
        .iter()
        .map(|(name, value)| {
            let line = value.lines().next().unwrap_or_default();
            let cut: String = line.chars().take(VALUE).collect();
            let more = if cut.len() < value.len() { "…" } else { "" };
            format!("{name}={cut}{more}")
        })
        .collect();
    format!("{}({})", action.name, params.join(", "))
}

fn paint(style: Style, status: pb::StepStatus) -> String {
    use pb::StepStatus as S;
    let text = step_status(status);
    match status {
        S::Done => style.good(&text),
        S::Failed | S::UndoFailed | S::Unknown => style.bad(&text),
        S::Undoing | S::Undone => style.warn(&text),
        S::Unspecified | S::Pending | S::Running => text,
    }
}
