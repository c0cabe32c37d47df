//! What the cluster has learned, in words. The counting itself is the law's: an election forgets
//! nothing, and every node tells the same.

use medic_state::{
    Ppm, State,
    state::{Lesson, LessonKey},
};

/// One lesson.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Class of fault.
    pub class: String,
    /// Playbook.
    pub playbook: String,
    /// The counts.
    pub lesson: Lesson,
    /// Verified share of those that could be told; `None`: none could.
    pub success: Option<Ppm>,
    /// For people.
    pub text: String,
}

/// The lessons of a tenant, by class and playbook.
#[must_use]
pub fn lessons(state: &State, tenant: &str) -> Vec<Told> {
    state
        .lessons
        .iter()
        .filter(|(key, _)| key.tenant == tenant)
        .map(|(key, lesson)| tell(key, *lesson))
        .collect()
}

fn tell(key: &LessonKey, lesson: Lesson) -> Told {
    let told = lesson.succeeded.saturating_add(lesson.failed);
    let share = lesson.succeeded.saturating_mul(1_000_000).checked_div(told);
    let success = share.and_then(|share| u32::try_from(share).ok()).map(Ppm);
    let mut text =
        format!("{} helped with {} {} of {told} times", key.playbook, key.class, lesson.succeeded);
    if let Some(mean) = lesson.heal_ms_sum.checked_div(lesson.succeeded) {
        text.push_str(&format!(", in {}.{} s on average", mean / 1000, mean % 1000 / 100));
    }
    if lesson.inconclusive > 0 {
        text.push_str(&format!("; {} could not be told", lesson.inconclusive));
    }
    Told { class: key.class.clone(), playbook: key.playbook.clone(), lesson, success, text }
}
