//! What evaluating a condition may cost at most, told from its text alone.
//!
//! CEL always ends, but `[…].all(a, […].all(b, …))` ends after any number of years, and a chain of
//! ten thousand `+` is as deep as the evaluator's stack. Conditions are evaluated by the leader while
//! incidents wait, so both are refused while their author still looks at them.
//! Invariant: the estimate is never below the number of nodes that an evaluation visits.

use cel::{
    IdedExpr,
    common::ast::{ComprehensionExpr, EntryExpr, Expr},
};

/// Nodes that one evaluation may visit: some milliseconds.
pub(super) const MAX_COST: u64 = 20_000;
/// Nesting, chains of one operator included: each level is a frame of the evaluator.
pub(super) const MAX_DEPTH: u32 = 128;
/// Entries that the maps we hand in have at the most (labels, indicators).
const MAP_ENTRIES_MAX: u64 = 256;
/// `matches` compiles its pattern each time.
const PATTERN_COST: u64 = 1_000;

/// Why a condition costs too much; `None`: it does not.
pub(super) fn too_costly(root: &IdedExpr, source: &str) -> Option<String> {
    if deeper_than(root, MAX_DEPTH) {
        return Some(format!(
            "the condition is nested deeper than {MAX_DEPTH} (every link of a chain counts): split it, or use `in` and `exists`"
        ));
    }
    let mut estimate = Estimate { longest: source.len() as u64, bound: Vec::new() };
    let cost = estimate.cost(root);
    (cost > MAX_COST).then(|| {
        format!(
            "evaluating the condition could take more than {MAX_COST} steps: loop over less, and not within loops"
        )
    })
}

/// Never goes deeper than it asks about.
fn deeper_than(node: &IdedExpr, depth: u32) -> bool {
    let Some(left) = depth.checked_sub(1) else { return true };
    children(node).into_iter().any(|child| deeper_than(child, left))
}

fn entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(pair) => vec![&pair.key, &pair.value],
    }
}

fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::Comprehension(over) => {
            vec![&over.iter_range, &over.accu_init, &over.loop_cond, &over.loop_step, &over.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|e| entry(&e.expr)).collect(),
        Expr::Struct(object) => object.entries.iter().flat_map(|e| entry(&e.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
    }
}

struct Estimate {
    /// No list or text that the condition itself spells is longer.
    longest: u64,
    /// Variables of the comprehensions around: they may hold anything that is spelt.
    bound: Vec<String>,
}

impl Estimate {
    fn cost(&mut self, node: &IdedExpr) -> u64 {
        if let Expr::Comprehension(over) = &node.expr {
            return self.loop_cost(over);
        }
        let own = match &node.expr {
            Expr::Call(call) if call.func_name == "matches" => PATTERN_COST,
            _ => 1,
        };
        children(node).into_iter().fold(own, |sum, child| sum.saturating_add(self.cost(child)))
    }

    fn loop_cost(&mut self, over: &ComprehensionExpr) -> u64 {
        let before = self.cost(&over.iter_range).saturating_add(self.cost(&over.accu_init));
        let rounds = self.length(&over.iter_range);
        let outer = self.bound.len();
        self.bound.extend([over.iter_var.clone(), over.accu_var.clone()]);
        self.bound.extend(over.iter_var2.clone());
        let round = self.cost(&over.loop_cond).saturating_add(self.cost(&over.loop_step));
        let after = self.cost(&over.result);
        self.bound.truncate(outer);
        before.saturating_add(rounds.saturating_mul(round)).saturating_add(after)
    }

    /// Elements that a loop over this takes at the most.
    fn length(&self, node: &IdedExpr) -> u64 {
        match &node.expr {
            Expr::List(list) => list.elements.len() as u64,
            Expr::Map(map) => map.entries.len() as u64,
            // `map` and `filter` give at most what they take.
            Expr::Comprehension(over) => self.length(&over.iter_range),
            Expr::Call(call) if call.func_name == "_+_" => {
                call.args.iter().map(|arg| self.length(arg)).fold(0, u64::saturating_add)
            }
            Expr::Ident(name) if !self.bound.contains(name) => MAP_ENTRIES_MAX,
            Expr::Select(_) if !self.of_loop(node) => MAP_ENTRIES_MAX,
            Expr::Unspecified
            | Expr::Literal(_)
            | Expr::Ident(_)
            | Expr::Select(_)
            | Expr::Call(_)
            | Expr::Struct(_) => self.longest.max(MAP_ENTRIES_MAX),
        }
    }

    /// Whether a selection starts at anything but one of our own maps.
    fn of_loop(&self, node: &IdedExpr) -> bool {
        match &node.expr {
            Expr::Select(select) => self.of_loop(&select.operand),
            Expr::Ident(name) => self.bound.contains(name),
            Expr::Unspecified
            | Expr::Literal(_)
            | Expr::Call(_)
            | Expr::Comprehension(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Struct(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn verdict(source: &str) -> Option<String> {
        let program = cel::Program::compile(source).unwrap();
        too_costly(program.expression(), source)
    }

    #[test]
    fn what_people_write_is_cheap() {
        for source in [
            "target.replicas > 1 && symptom.p_value < 0.001",
            "symptom.labels.exists(l, l.startsWith('dead') || l.endsWith('gone'))",
            "['a', 'b', 'c'].exists(x, ['d', 'e'].all(y, x != y)) && symptom.kind.matches('a+')",
            &vec!["probe.http_ok == 1.0"; 100].join(" && "),
        ] {
            assert_eq!(verdict(source), None, "{source}");
        }
    }

    #[test]
    fn loops_within_loops_and_long_chains_are_refused() {
        let list = format!("[{}]", vec!["1"; 100].join(","));
        let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c > 0)))");
        let hidden = format!("[{list}].all(x, x.all(a, x.all(b, x.all(c, a + b + c > 0))))");
        let patterns = format!("{list}.all(a, 'x'.matches('(y{{1000}}){{100}}'))");
        for source in [nested, hidden, patterns] {
            let why = verdict(&source).unwrap();
            assert!(why.contains("more than 20000 steps"), "{source}: {why}");
        }
        for source in [
            format!("1{} > 0", "+1".repeat(2_000)),
            format!("symptom{} == 1", ".a".repeat(2_000)),
            format!("symptom{} == 1", "[0]".repeat(1_300)),
            format!("{}true", "false ? true : ".repeat(90)),
        ] {
            let refused = cel::Program::compile(&source).map(|program| {
                too_costly(program.expression(), &source)
                    .is_none_or(|why| why.contains("nested deeper"))
            });
            assert!(refused.unwrap_or(true), "{source}");
        }
        assert!(verdict(&format!("1{} > 0", "+1".repeat(2_000))).is_some());
    }
}
