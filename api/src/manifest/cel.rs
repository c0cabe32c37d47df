//! CEL conditions, checked before they are stored: syntax, the names they use, their size.
//!
//! A condition that names `taget` would fail at the worst moment; here it fails while the author
//! still looks at it.

use std::collections::BTreeSet;

use cel::{
    IdedExpr, Program,
    common::ast::{EntryExpr, Expr},
};

use super::cost::too_costly;

/// Characters of a condition: several screens; the parser's cost grows with it.
pub const MAX_CONDITION: usize = 4_096;
/// What `when` may name.
pub const WHEN_VARIABLES: [&str; 3] = ["incident", "symptom", "target"];
/// What `verify.expect` may name.
pub const EXPECT_VARIABLES: [&str; 4] = ["probe", "metric", "before", "delta"];
/// What conditions may call, beside operators and the macros `has`, `all`, `exists`, `exists_one`,
/// `map`, `filter`.
pub const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
];

/// Comprehensions within each other. Each multiplies the cost, and conditions are evaluated while the
/// state is being read; what conditions may name are flat maps, so one level says all there is to say.
const MAX_NESTED: usize = 1;

/// What is wrong with a condition, and where in it (line and column from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadCondition {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// Compiles a condition and checks the names it uses.
pub(super) fn check(source: &str, variables: &[&str]) -> Vec<BadCondition> {
    let whole = |message: String| vec![BadCondition { line: 1, column: 1, message }];
    if source.trim().is_empty() {
        return whole("the condition is empty".to_owned());
    }
    if source.chars().count() > MAX_CONDITION {
        return whole(format!("the condition is longer than {MAX_CONDITION} characters"));
    }
    let program = match Program::compile(source) {
        Ok(program) => program,
        Err(errors) => {
            let small = |n: isize| u32::try_from(n).unwrap_or(1).max(1);
            return errors
                .errors
                .iter()
                .map(|e| BadCondition {
                    line: small(e.pos.0),
                    column: small(e.pos.1),
                    message: e.msg.clone(),
                })
                .collect();
        }
    };
    if let Some(why) = too_costly(program.expression(), source) {
        return whole(why);
    }
    let mut walk =
        Walk { variables, bound: Vec::new(), nested: 0, seen: BTreeSet::new(), found: Vec::new() };
    walk.expression(program.expression());
    let info = program.source_info();
    walk.found
        .into_iter()
        .map(|(id, message)| {
            let start = info.offset_for(id).map_or(0, |(start, _)| start as usize);
            let (line, column) = position(source, start);
            BadCondition { line, column, message }
        })
        .collect()
}

/// Line and column, from 1, of the character at this offset.
fn position(source: &str, offset: usize) -> (u32, u32) {
    source.chars().take(offset).fold((1, 1), |(line, column), c| {
        if c == '\n' { (line + 1, 1) } else { (line, column + 1) }
    })
}

struct Walk<'a> {
    variables: &'a [&'a str],
    /// Variables of the comprehensions around.
    bound: Vec<String>,
    /// Bodies of comprehensions around.
    nested: usize,
    seen: BTreeSet<String>,
    found: Vec<(u64, String)>,
}

impl Walk<'_> {
    fn expression(&mut self, node: &IdedExpr) {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.variable(node.id, name),
            Expr::Call(call) => {
                self.function(node.id, &call.func_name);
                call.target.iter().for_each(|target| self.expression(target));
                call.args.iter().for_each(|arg| self.expression(arg));
            }
            Expr::Comprehension(over) => {
                self.expression(&over.iter_range);
                self.expression(&over.accu_init);
                if self.nested == MAX_NESTED {
                    let message = "all, exists, exists_one, map and filter do not nest".to_owned();
                    return self.found.push((node.id, message));
                }
                self.nested += 1;
                let depth = self.bound.len();
                self.bound.extend([over.iter_var.clone(), over.accu_var.clone()]);
                self.bound.extend(over.iter_var2.clone());
                for part in [&over.loop_cond, &over.loop_step, &over.result] {
                    self.expression(part);
                }
                self.bound.truncate(depth);
                self.nested -= 1;
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(object) => object.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Select(select) => self.expression(&select.operand),
        }
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value),
            EntryExpr::MapEntry(pair) => {
                self.expression(&pair.key);
                self.expression(&pair.value);
            }
        }
    }

    fn variable(&mut self, id: u64, name: &str) {
        let known = name.starts_with('@')
            || self.variables.contains(&name)
            || self.bound.iter().any(|bound| bound == name);
        if !known && self.seen.insert(name.to_owned()) {
            self.found.push((id, super::de::unknown("variable", name, self.variables)));
        }
    }

    /// Operators are calls of functions whose names are no identifiers: `_&&_`, `!_`, `_[_]`.
    fn function(&mut self, id: u64, name: &str) {
        let operator = name.contains('_') || name.starts_with('@');
        if !operator && !FUNCTIONS.contains(&name) && self.seen.insert(format!("{name}()")) {
            self.found.push((id, super::de::unknown("function", name, &FUNCTIONS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(source: &str) -> Vec<(u32, u32, String)> {
        check(source, &WHEN_VARIABLES)
            .into_iter()
            .map(|bad| (bad.line, bad.column, bad.message))
            .collect()
    }

    #[test]
    fn good_conditions_pass() {
        for source in [
            "target.replicas > 1 && symptom.p_value < 0.001",
            "has(symptom.labels.process) && symptom.labels['process'] in ['dead', 'stopped']",
            "!(incident.severity == 'critical') || symptom.kind.startsWith('sat')",
            "symptom.signals.exists(s, s.value > 1.0 && size(s.name) > 0)",
            "target.standby ? -1 < 0 : true",
        ] {
            assert_eq!(wrong(source), [], "{source}");
        }
        assert_eq!(check("probe.http_ok == 1.0 && delta.error_rate <= 0.0", &EXPECT_VARIABLES), []);
    }

    #[test]
    fn unknown_names_are_placed() {
        let found = wrong("target.replicas > 1 &&\n  taget.x && siz(target)");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (2, 3));
        assert!(found[0].2.contains("unknown variable `taget`; did you mean `target`?"));
        assert!(found[1].2.contains("unknown function `siz`; did you mean `size`?"));
    }

    #[test]
    fn a_condition_cannot_cost_more_than_its_length() {
        let inner = "[1, 2].all(x, [1, 2].exists(y, x < y))";
        let found = wrong(inner);
        assert!(found.len() == 1 && found[0].2.contains("do not nest"), "{found:?}");
        assert_eq!(wrong("[1, 2].map(x, x + 1).filter(x, x > 1).exists(x, x == 3)"), []);
    }

    #[test]
    fn broken_syntax_is_placed() {
        let found = wrong("target.replicas >");
        assert!(!found.is_empty() && found[0].1 > 1, "{found:?}");
        assert!(!wrong("").is_empty());
        assert!(!wrong(&"(".repeat(MAX_CONDITION)).is_empty());
        assert!(!wrong(&"!".repeat(MAX_CONDITION + 1)).is_empty());
    }
}
