//! Serde over the located tree: every error knows its path and its place.
//!
//! Untyped positions follow YAML's core schema for plain scalars (numbers, truth values, nothing);
//! where text is expected, the text is taken as it was written, so `port: 8080` and `version: 1.10`
//! arrive unchanged.

use std::fmt;

use serde::{
    de::{
        DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::tree::{Key, Node, Pos, Style, Value};

/// Why a tree is not the type that is expected.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) message: String,
    pub(super) at: Option<Pos>,
    /// Innermost first.
    segments: Vec<String>,
}

impl Mismatch {
    /// The path from the root: `steps[0].undo.action`.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.segments.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }

    fn within(mut self, segment: String, at: Pos) -> Self {
        self.segments.push(segment);
        self.at.get_or_insert(at);
        self
    }

    fn at(mut self, at: Pos) -> Self {
        self.at.get_or_insert(at);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), at: None, segments: Vec::new() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(unknown("key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(unknown("value", variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("key `{field}` is missing"))
    }
}

pub(super) fn unknown(what: &str, given: &str, expected: &[&str]) -> String {
    format!("unknown {what} `{given}`{}", alternatives(given, expected))
}

/// Names the nearest alternative, when one is near, and all of them; to be put behind what was given.
#[must_use]
pub fn alternatives(given: &str, expected: &[&str]) -> String {
    let near = expected.iter().map(|name| (distance(given, name), name)).min();
    let hint = match near {
        Some((d, name)) if d <= 2 && d < name.len() => format!("; did you mean `{name}`?"),
        _ => String::new(),
    };
    format!("{hint} (known: {})", expected.join(", "))
}

/// Levenshtein distance, for texts of a key's length.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = if x.eq_ignore_ascii_case(y) { diagonal } else { diagonal + 1 };
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Reads a tree as `T`.
pub(super) fn read<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, Mismatch> {
    T::deserialize(De(node)).map_err(|error| error.at(node.at))
}

#[derive(Clone, Copy)]
struct De<'t>(&'t Node);

impl De<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0.value {
            Value::Scalar { .. } if self.0.is_null() => Unexpected::Other("nothing"),
            Value::Scalar { text, .. } => Unexpected::Str(text),
            Value::Seq(_) => Unexpected::Other("a list"),
            Value::Map(_) => Unexpected::Other("a mapping"),
        }
    }

    fn scalar<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.0.value {
            Value::Scalar { text, .. } if !self.0.is_null() => visitor.visit_str(text),
            _ => Err(Mismatch::invalid_type(self.unexpected(), &visitor)),
        }
    }
}

impl<'de> serde::Deserializer<'de> for De<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let result = match &self.0.value {
            Value::Seq(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
            Value::Scalar { .. } if self.0.is_null() => visitor.visit_unit(),
            Value::Scalar { text, style: Style::Plain } => plain(text, visitor),
            Value::Scalar { text, .. } => visitor.visit_str(text),
        };
        result.map_err(|error| error.at(self.0.at))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.scalar(visitor).map_err(|error| error.at(self.0.at))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let result = match &self.0.value {
            Value::Scalar { text, .. } if !self.0.is_null() => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            Value::Map(entries) if entries.len() == 1 => {
                let (key, node) = &entries[0];
                visitor.visit_enum(Variant { key, node })
            }
            Value::Scalar { .. } | Value::Seq(_) | Value::Map(_) => {
                Err(Mismatch::custom(format!("expected exactly one of: {}", variants.join(", "))))
            }
        };
        result.map_err(|error| error.at(self.0.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A plain scalar by YAML's core schema. Numbers with leading zeros stay text: they are codes.
fn plain<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Mismatch> {
    match text {
        "true" | "True" | "TRUE" => return visitor.visit_bool(true),
        "false" | "False" | "FALSE" => return visitor.visit_bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if digits.starts_with(|c: char| c.is_ascii_digit()) && !code {
        if let Ok(number) = text.parse::<u64>() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return visitor.visit_i64(number);
        }
        if let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            return visitor.visit_f64(number);
        }
    }
    visitor.visit_str(text)
}

struct Items<'t> {
    items: &'t [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(De(item))
            .map(Some)
            .map_err(|error| error.within(format!("[{index}]"), item.at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'t> {
    entries: &'t [(Key, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        seed.deserialize(key.text.as_str().into_deserializer())
            .map(Some)
            .map_err(|error: Mismatch| error.within(key.text.clone(), key.at))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let (key, node) = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(De(node)).map_err(|error| error.within(key.text.clone(), node.at))
    }
}

struct Variant<'t> {
    key: &'t Key,
    node: &'t Node,
}

impl<'de, 't> EnumAccess<'de> for Variant<'t> {
    type Error = Mismatch;
    type Variant = Content<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<'t>), Mismatch> {
        let value = seed
            .deserialize(self.key.text.as_str().into_deserializer())
            .map_err(|error: Mismatch| error.within(self.key.text.clone(), self.key.at))?;
        Ok((value, Content { key: self.key, node: self.node }))
    }
}

struct Content<'t> {
    key: &'t Key,
    node: &'t Node,
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        let message = format!("`{}` takes no value", self.key.text);
        Err(Mismatch::custom(message).at(self.node.at))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mismatch> {
        let Self { key, node } = self;
        seed.deserialize(De(node)).map_err(|error| error.within(key.text.clone(), node.at))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.struct_variant(&[], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let Self { key, node } = self;
        serde::Deserializer::deserialize_any(De(node), visitor)
            .map_err(|error| error.within(key.text.clone(), node.at))
    }
}
