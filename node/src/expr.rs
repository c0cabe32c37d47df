//! CEL as judgement reads it: three-valued.
//!
//! A condition is true, false, or cannot be told because something it asks for was not seen.
//! CEL's own logic is kept: `false && <no data>` is false, `true || <no data>` is true; everything
//! else that touches missing data is [`Truth::NoData`], never true. Numbers that are not finite are
//! not data. Absent on purpose: functions beyond the standard library, and any clock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use cel::{Context, ExecutionError, Program, Value, objects::Key};

/// What a condition came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It asks for something that was not seen: what.
    NoData(String),
}

/// Why a condition is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It does not parse.
    #[error("`{text}` is not CEL: {reason}")]
    Parse {
        /// As written.
        text: String,
        /// What the parser says, on one line.
        reason: String,
    },
    /// It parses, but can never be true or false.
    #[error("`{text}` cannot be evaluated: {reason}")]
    Evaluate {
        /// As written.
        text: String,
        /// What the evaluator says.
        reason: String,
    },
}

/// One value a condition may ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A fraction, a measurement.
    Number(f64),
    /// A count.
    Count(u64),
    /// A name.
    Text(String),
    /// A fact.
    Flag(bool),
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Number(number) => Self::Float(number),
            Scalar::Count(count) => Self::Int(i64::try_from(count).unwrap_or(i64::MAX)),
            Scalar::Text(text) => text.into(),
            Scalar::Flag(flag) => Self::Bool(flag),
        }
    }
}

/// Named maps of values: `target.replicas` is `facts["target"]["replicas"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(BTreeMap<Cow<'static, str>, BTreeMap<String, Scalar>>);

impl Facts {
    /// Makes a map known, even when nothing gets into it: asking it is "no data", not an error.
    pub fn declare(&mut self, map: impl Into<Cow<'static, str>>) {
        self.0.entry(map.into()).or_default();
    }

    /// Adds a value. Numbers that are not finite are left out.
    pub fn set(&mut self, map: impl Into<Cow<'static, str>>, name: &str, value: Scalar) {
        if matches!(value, Scalar::Number(number) if !number.is_finite()) {
            return self.declare(map);
        }
        self.0.entry(map.into()).or_default().insert(name.to_owned(), value);
    }

    /// Whether no map holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }
}

/// A parsed condition.
#[derive(Debug)]
pub struct Condition {
    text: String,
    program: Program,
}

impl Condition {
    /// Parses it.
    ///
    /// # Errors
    /// When it is not CEL.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        let program = Program::compile(text).map_err(|errors| ExprError::Parse {
            text: text.to_owned(),
            reason: errors.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        })?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// When it is neither true nor false for a reason other than missing data: a type error, an
    /// unknown name, a result that is no boolean.
    pub fn evaluate(&self, facts: &Facts) -> Result<Truth, ExprError> {
        let mut context = Context::default();
        for (name, map) in &facts.0 {
            let values: HashMap<Key, Value> =
                map.iter().map(|(key, value)| (key.clone().into(), value.clone().into())).collect();
            context.add_variable_from_value(name.as_ref(), values);
        }
        let bad = |reason: String| ExprError::Evaluate { text: self.text.clone(), reason };
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Ok(Truth::True),
            Ok(Value::Bool(false)) => Ok(Truth::False),
            Ok(other) => Err(bad(format!("it gives {}, not a boolean", other.type_of()))),
            Err(ExecutionError::NoSuchKey(key)) => Ok(Truth::NoData(format!("no data for {key}"))),
            Err(error) => Err(bad(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts::default();
        facts.set("probe", "http_ok", Scalar::Number(1.0));
        facts.set("metric", "error_rate", Scalar::Number(0.25));
        facts.set("metric", "broken", Scalar::Number(f64::NAN));
        facts.set("target", "replicas", Scalar::Count(3));
        facts.set("symptom", "kind", Scalar::Text("down".to_owned()));
        facts.set("incident", "predicted", Scalar::Flag(false));
        facts.declare("delta");
        facts
    }

    #[test]
    fn conditions_are_three_valued() {
        let no = |key: &str| Truth::NoData(format!("no data for {key}"));
        for (text, expected) in [
            ("probe.http_ok == 1.0", Truth::True),
            ("probe.http_ok == 1", Truth::True),
            ("metric.error_rate <= 0.2", Truth::False),
            ("metric.error_rate < 1", Truth::True),
            ("metric.absent <= 0.2", no("absent")),
            ("metric.broken <= 0.2", no("broken")),
            ("delta.error_rate <= 0.0", no("error_rate")),
            ("delta.error_rate <= 0.0 && probe.http_ok == 0.0", Truth::False),
            ("probe.http_ok == 0.0 && delta.error_rate <= 0.0", Truth::False),
            ("probe.http_ok == 1.0 && delta.error_rate <= 0.0", no("error_rate")),
            ("delta.error_rate <= 0.0 && probe.http_ok == 1.0", no("error_rate")),
            ("delta.error_rate <= 0.0 || probe.http_ok == 1.0", Truth::True),
            ("delta.error_rate <= 0.0 || probe.http_ok == 0.0", no("error_rate")),
            ("!has(delta.error_rate)", Truth::True),
            ("target.replicas > 1 && symptom.kind == 'down'", Truth::True),
            ("symptom.kind.startsWith('un')", Truth::False),
            ("!incident.predicted", Truth::True),
        ] {
            let found = Condition::parse(text).unwrap().evaluate(&facts()).unwrap();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_an_error() {
        for text in ["", "probe.", "1 +", "a b", "'x"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
        for text in ["probe.http_ok", "nowhere.x == 1", "symptom.kind < 3", "1"] {
            let condition = Condition::parse(text).unwrap();
            assert!(condition.evaluate(&facts()).is_err(), "{text}");
        }
    }
}
