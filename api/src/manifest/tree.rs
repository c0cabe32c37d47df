//! YAML text to a tree whose every node knows where it stands.
//!
//! Limits hold while the tree grows, so that a hostile text costs no more than a long honest one.
//! Aliases are counted, nodes and bytes, and then copied as they are met; tags and merge keys have no meaning here.
//! JSON is a subset of YAML and takes the same way.

use std::{borrow::Cow, collections::HashMap};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

/// Bytes of one bundle: room for a thousand services, small beside one node's memory.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Documents of one bundle.
pub const MAX_DOCUMENTS: usize = 1_000;
/// Nodes of one document, copies made by aliases included.
pub const MAX_NODES: usize = 100_000;
/// Bytes that anchors and aliases may copy in one bundle: a few letters of text could otherwise
/// stand for any number of documents, nodes, and long scalars.
pub const MAX_COPIED_BYTES: usize = MAX_BYTES;
/// Nesting; the deepest manifest we define has 8.
pub const MAX_DEPTH: usize = 32;

/// A place in the text, both from 1. Zero: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Pos,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text; `plain`: not quoted, so it may also be a number, a truth value or nothing.
    Scalar { text: String, style: Style },
    /// A list.
    Seq(Vec<Node>),
    /// Entries in the order they were written; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// How a scalar was written; decides what it may be read as, and where its first character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    Block,
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Pos,
    pub(super) text: String,
}

/// What is wrong with a document's form.
#[derive(Clone, Debug)]
pub(super) struct Malformed {
    pub(super) at: Pos,
    pub(super) message: String,
}

impl Node {
    /// The value of a key of this mapping.
    pub(super) fn get(&self, key: &str) -> Option<(&Key, &Self)> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|(k, _)| k.text == key).map(|(k, node)| (k, node))
            }
            Value::Scalar { .. } | Value::Seq(_) => None,
        }
    }

    /// The deepest node on a path such as `spec.steps[0].undo`, and whether the path ends there.
    pub(super) fn locate(&self, path: &str) -> (&Self, bool) {
        let mut node = self;
        for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
            let next = match (&node.value, segment.strip_suffix(']')) {
                (Value::Seq(items), Some(index)) => {
                    index.parse().ok().and_then(|i: usize| items.get(i))
                }
                (Value::Map(_), None) => node.get(segment).map(|(_, node)| node),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// Nodes in it, and bytes that a copy takes.
    fn size(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), (n, b): (usize, usize)| (nodes + n, bytes + b);
        let own = (1, size_of::<Self>());
        match &self.value {
            Value::Scalar { text, .. } => add(own, (0, text.len())),
            Value::Seq(items) => items.iter().map(Self::size).fold(own, add),
            Value::Map(entries) => entries.iter().fold(own, |sum, (key, node)| {
                add(add(sum, (0, size_of::<Key>() + key.text.len())), node.size())
            }),
        }
    }
}

/// Reads every document; a malformed one does not hide the others.
pub(super) fn documents(text: &str) -> Vec<Result<Node, Vec<Malformed>>> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes; at most {MAX_BYTES} are read", text.len());
        return vec![Err(vec![Malformed { at: Pos::default(), message }])];
    }
    let mut options = Options::default();
    options.emit_comments = false;
    options.flow_nesting_limit = MAX_DEPTH;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut found = Vec::new();
    let mut copied = 0;
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => return found,
            Some(Ok((Event::DocumentStart(..), span))) => {
                if found.len() == MAX_DOCUMENTS {
                    let message = format!("more than {MAX_DOCUMENTS} documents");
                    found.push(Err(vec![Malformed { at: pos(&span), message }]));
                    return found;
                }
                let mut builder = Builder::new(&mut parser, copied);
                let outcome = builder.document();
                copied = builder.copied;
                if let Some(outcome) = outcome.transpose() {
                    found.push(outcome);
                }
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => found.push(Err(vec![scan_error(&error)])),
        }
        let failed = matches!(found.last(), Some(Err(_)));
        if failed && !parser.proceed_next_document().unwrap_or(false) {
            return found;
        }
    }
}

struct Builder<'p, 'input> {
    parser: &'p mut Parser<'input, StrInput<'input>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// Bytes copied so far, earlier documents included.
    copied: usize,
    duplicates: Vec<Malformed>,
}

impl<'p, 'input> Builder<'p, 'input> {
    fn new(parser: &'p mut Parser<'input, StrInput<'input>>, copied: usize) -> Self {
        Self { parser, anchors: HashMap::new(), nodes: 0, copied, duplicates: Vec::new() }
    }

    /// The document's root; `None` when it is empty.
    fn document(&mut self) -> Result<Option<Node>, Vec<Malformed>> {
        let root = self.next().and_then(|(event, span)| match event {
            Event::DocumentEnd => Ok(None),
            event => self.node(event, &span, 0).map(Some),
        });
        match root {
            Err(error) => {
                self.duplicates.push(error);
                Err(std::mem::take(&mut self.duplicates))
            }
            Ok(_) if !self.duplicates.is_empty() => Err(std::mem::take(&mut self.duplicates)),
            Ok(Some(root)) if root.is_null() => Ok(None),
            Ok(root) => Ok(root),
        }
    }

    fn next(&mut self) -> Result<(Event<'input>, Span), Malformed> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Err(Malformed { at: Pos::default(), message: "the text ends early".into() }),
        }
    }

    fn node(&mut self, event: Event<'input>, span: &Span, depth: usize) -> Result<Node, Malformed> {
        let at = pos(span);
        if depth > MAX_DEPTH {
            return Err(Malformed { at, message: format!("nested deeper than {MAX_DEPTH}") });
        }
        self.grow(1, at)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                untagged(tag.as_ref().map(Cow::as_ref), at)?;
                (Value::Scalar { text: text.into_owned(), style: style_of(style) }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                untagged(tag.as_ref().map(Cow::as_ref), at)?;
                (Value::Seq(self.items(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                untagged(tag.as_ref().map(Cow::as_ref), at)?;
                (Value::Map(self.entries(depth)?), anchor)
            }
            Event::Alias(anchor) => {
                let Some(original) = self.anchors.remove(&anchor) else {
                    let message = "an alias refers to an anchor that contains it".into();
                    return Err(Malformed { at, message });
                };
                self.copy(&original, at)?;
                self.grow(original.size().0, at)?;
                let copy = original.clone();
                self.anchors.insert(anchor, original);
                return Ok(copy);
            }
            other => return Err(Malformed { at, message: format!("unexpected {other:?}") }),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.copy(&node, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Malformed> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Malformed> {
        let mut entries = Vec::new();
        let mut seen: HashMap<String, Pos> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let at = pos(&span);
            let key = match self.node(event, &span, depth + 1)?.value {
                Value::Scalar { text, .. } => Key { at, text },
                Value::Seq(_) | Value::Map(_) => {
                    return Err(Malformed { at, message: "a key is a plain text".into() });
                }
            };
            if let Some(first) = seen.insert(key.text.clone(), at) {
                let message = format!(
                    "duplicate key `{}`: it stands already in line {}",
                    key.text, first.line
                );
                self.duplicates.push(Malformed { at, message });
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, &span, depth + 1)?));
        }
    }

    /// Counts a copy before it is made.
    fn copy(&mut self, of: &Node, at: Pos) -> Result<(), Malformed> {
        self.copied = self.copied.saturating_add(of.size().1);
        if self.copied > MAX_COPIED_BYTES {
            let message = format!("anchors and aliases copy more than {MAX_COPIED_BYTES} bytes");
            return Err(Malformed { at, message });
        }
        Ok(())
    }

    fn grow(&mut self, by: usize, at: Pos) -> Result<(), Malformed> {
        self.nodes += by;
        if self.nodes > MAX_NODES {
            return Err(Malformed { at, message: format!("more than {MAX_NODES} nodes") });
        }
        Ok(())
    }
}

impl Node {
    /// Whether it says nothing: empty, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

fn untagged(tag: Option<&serde_saphyr::granit_parser::Tag>, at: Pos) -> Result<(), Malformed> {
    match tag {
        None => Ok(()),
        Some(tag) => Err(Malformed { at, message: format!("tags such as `{tag}` are not read") }),
    }
}

const fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

fn pos(span: &Span) -> Pos {
    place(span.start.line(), span.start.col())
}

/// The parser counts columns from 0.
fn place(line: usize, col: usize) -> Pos {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Pos { line: small(line), column: small(col + 1) }
}

fn scan_error(error: &ScanError) -> Malformed {
    let mark = error.marker();
    Malformed { at: place(mark.line(), mark.col()), message: error.info() }
}
