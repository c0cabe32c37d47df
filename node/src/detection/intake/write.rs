//! Prometheus remote write, versions 1.0 and 2.0: the message within the snappy block.
//!
//! ```text
//!   v1  WriteRequest { 1: TimeSeries { 1: Label{1,2}, 2: Sample{1,2}, 3: Exemplar, 4: Histogram },
//!                      3: MetricMetadata { 1: type, 2: family, 4: help, 5: unit } }
//!   v2  Request { 4: symbols, 5: TimeSeries { 1: refs, 2: Sample, 3: Histogram, 4: Exemplar, 5: Metadata{1} } }
//! ```
//!
//! A message is walked twice: once to see that it is one and how much is in it, and again to take it.
//! So a malformed one leaves nothing behind, and a sender that is too fast is told before anything is
//! taken. The first keeps nothing ([`survey`]); the second leaves labels unread, for by their bytes alone most
//! series are known ([`skim`]). Native histograms and exemplars are counted, not read.
//!
//! So is the metadata of version 1. What an indicator does with a series is declared; a type has one use here, that a
//! series begins anew where its type changes, and only where it stands beside the samples. Version 1 tells it of families,
//! in messages of their own, up to a minute later: by then the increase across the change has been counted, and to begin
//! anew would cost a good one.

use super::{
    sample::{Kind, LABELS_MAX, Sample, SeriesView},
    wire::{self, BadWire, Reader, Value},
};

/// Bytes of a message once its block is opened. Prometheus sends some 300 KiB at its defaults.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Series of one message; Prometheus sends at most 2,000 samples at its defaults.
pub const SERIES_MAX: usize = 100_000;
/// Samples of one message.
pub const SAMPLES_MAX: usize = 200_000;
/// Families of one message; Prometheus sends 2,000 at its defaults.
pub const FAMILIES_MAX: usize = 100_000;
/// Symbols of one message.
pub const SYMBOLS_MAX: usize = 200_000;

/// Begins a label in a series of version 1: field 1, of bytes.
const LABEL_TAG: u8 = 1 << 3 | 2;
/// In a version 1 message of ours, which says between nodes what has come in otherwise: the type of a
/// series. Who does not know it reads over it.
const KIND_FIELD: u32 = 1_000;

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// How much is in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Series.
    pub series: usize,
    /// Samples.
    pub samples: usize,
    /// Native histograms, which are not read.
    pub histograms: usize,
    /// Exemplars, which are not read.
    pub exemplars: usize,
    /// Families of which version 1 tells the type, help or unit, which are not kept.
    pub families: usize,
}

/// A message that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWrite {
    /// The block is no snappy.
    #[error("the body is no snappy block: {0}")]
    Snappy(String),
    /// It would be too large when opened.
    #[error(
        "the body would be {0} bytes when opened; at most {MESSAGE_BYTES_MAX} are taken: send fewer samples at a time"
    )]
    TooLarge(usize),
    /// Not protobuf.
    #[error("the body is no remote-write message: {0}")]
    Wire(#[from] BadWire),
    /// Too many series or samples.
    #[error(
        "more than {SERIES_MAX} series or {SAMPLES_MAX} samples in one message: send fewer at a time"
    )]
    TooMany,
    /// Too much metadata.
    #[error("metadata of more than {FAMILIES_MAX} families in one message: send fewer at a time")]
    TooManyFamilies,
    /// A reference to a symbol that is not there, or an odd number of references.
    #[error("a label refers to a symbol that is not there")]
    Symbol,
    /// Too many symbols.
    #[error("more than {SYMBOLS_MAX} symbols in one message")]
    TooManySymbols,
}

/// Opens the snappy block, if what is in it is of a bearable size.
///
/// # Errors
/// When it is no block, or too large.
pub fn open(body: &[u8]) -> Result<Vec<u8>, BadWrite> {
    let length = snap::raw::decompress_len(body).map_err(|e| BadWrite::Snappy(e.to_string()))?;
    if length > MESSAGE_BYTES_MAX {
        return Err(BadWrite::TooLarge(length));
    }
    // A block that lies about its length is refused while it is opened.
    snap::raw::Decoder::new().decompress_vec(body).map_err(|e| BadWrite::Snappy(e.to_string()))
}

/// Walks a message; `each` is given every series, unchecked, with its own bytes.
///
/// # Errors
/// When the message cannot be taken; series before the fault have been given by then.
pub fn read<'b>(
    version: Version,
    message: &'b [u8],
    mut each: impl FnMut(&mut SeriesView<'b>, &'b [u8]),
) -> Result<Survey, BadWrite> {
    walk(version, message, series_v1, |view, bytes| {
        each(view, bytes);
        Ok(())
    })
}

/// Walks a message without keeping anything of it.
///
/// # Errors
/// As [`read`]'s.
pub fn survey(version: Version, message: &[u8]) -> Result<Survey, BadWrite> {
    walk(version, message, survey_v1, |_, _| Ok(()))
}

/// The same, with the labels of version 1 left unread where they are in one piece: see [`read_labels`].
///
/// # Errors
/// As [`read`]'s, but for what is wrong within labels; and the first of `each`, which ends the walk.
pub fn skim<'b>(
    version: Version,
    message: &'b [u8],
    each: impl FnMut(&mut SeriesView<'b>, &'b [u8]) -> Result<(), BadWrite>,
) -> Result<Survey, BadWrite> {
    walk(version, message, skim_v1, each)
}

/// Reads what [`skim`] has left unread.
///
/// # Errors
/// When they are no labels.
pub fn read_labels(view: &mut SeriesView<'_>) -> Result<(), BadWrite> {
    let mut reader = Reader::new(std::mem::take(&mut view.unread));
    while let Some((number, value)) = reader.field()? {
        read_label(value.bytes(number)?, view)?;
    }
    Ok(())
}

/// The metric's name, whether its labels are read or not.
///
/// # Errors
/// As [`read_labels`]'s.
pub fn name<'b>(view: &mut SeriesView<'b>) -> Result<&'b str, BadWrite> {
    read_labels(view)?;
    Ok(view.name())
}

fn walk<'b>(
    version: Version,
    message: &'b [u8],
    v1: impl Fn(&'b [u8], &mut SeriesView<'b>) -> Result<(), BadWrite>,
    mut each: impl FnMut(&mut SeriesView<'b>, &'b [u8]) -> Result<(), BadWrite>,
) -> Result<Survey, BadWrite> {
    let mut survey = Survey::default();
    let symbols = match version {
        Version::V1 => Vec::new(),
        Version::V2 => symbols(message)?,
    };
    let mut view = SeriesView::default();
    let mut reader = Reader::new(message);
    while let Some((number, value)) = reader.field()? {
        let bytes = match (version, number) {
            (Version::V1, 1) | (Version::V2, 5) => value.bytes(number)?,
            (Version::V1, 3) => {
                family(value.bytes(number)?)?;
                survey.families += 1;
                if survey.families > FAMILIES_MAX {
                    return Err(BadWrite::TooManyFamilies);
                }
                continue;
            }
            _ => continue,
        };
        view.clear();
        match version {
            Version::V1 => v1(bytes, &mut view)?,
            Version::V2 => series_v2(bytes, &symbols, &mut view)?,
        }
        survey.series += 1;
        survey.samples += view.samples.len();
        survey.histograms += view.histograms;
        survey.exemplars += view.exemplars;
        if survey.series > SERIES_MAX || survey.samples > SAMPLES_MAX {
            return Err(BadWrite::TooMany);
        }
        each(&mut view, bytes)?;
    }
    Ok(survey)
}

fn series_v1<'b>(bytes: &'b [u8], view: &mut SeriesView<'b>) -> Result<(), BadWrite> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => read_label(value.bytes(number)?, view)?,
            _ => beside_labels(number, value, view)?,
        }
    }
    Ok(())
}

/// What comes after the label in front, and that label, where it is as nearly all are: of less than 128 bytes.
fn front_label(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [LABEL_TAG, length @ 0..0x80, rest @ ..] => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// Whether a label is a name and a value in ASCII, in this order: then there is nothing wrong with it.
fn plain(label: &[u8]) -> bool {
    let text = |tag: u8, bytes: &[u8]| match bytes {
        [first, length, ..] if *first == tag && *length < 0x80 => Some(2 + usize::from(*length)),
        _ => None,
    };
    let ends = text(1 << 3 | 2, label).and_then(|name| {
        let value = text(2 << 3 | 2, label.get(name..)?)?;
        Some(name + value)
    });
    // Tags and lengths are below 0x80 as well.
    ends == Some(label.len()) && label.is_ascii()
}

/// Sees whether labels are any, and keeps none.
fn survey_v1<'b>(bytes: &'b [u8], view: &mut SeriesView<'b>) -> Result<(), BadWrite> {
    let mut rest = bytes;
    while let Some((label, after)) = front_label(rest) {
        if !plain(label) {
            read_label(label, view)?;
        }
        rest = after;
    }
    series_v1(rest, view)
}

/// Labels that are all in front stay unread.
fn skim_v1<'b>(bytes: &'b [u8], view: &mut SeriesView<'b>) -> Result<(), BadWrite> {
    let mut rest = bytes;
    while let Some((_, after)) = front_label(rest) {
        rest = after;
    }
    let mut named = bytes.len() - rest.len();
    let mut reader = Reader::new(rest);
    loop {
        let at = bytes.len() - reader.rest().len();
        let Some((number, value)) = reader.field()? else { break };
        if number != 1 {
            beside_labels(number, value, view)?;
        } else if at == named {
            value.bytes(number)?;
            named = bytes.len() - reader.rest().len();
        } else {
            view.clear();
            return series_v1(bytes, view);
        }
    }
    view.unread = &bytes[..named];
    Ok(())
}

fn read_label<'b>(bytes: &'b [u8], view: &mut SeriesView<'b>) -> Result<(), BadWrite> {
    let (mut name, mut text) = ("", "");
    let mut label = Reader::new(bytes);
    while let Some((number, value)) = label.field()? {
        match number {
            1 => name = value.text(number)?,
            2 => text = value.text(number)?,
            _ => {}
        }
    }
    push_label(view, name, text);
    Ok(())
}

/// Fields of a series in version 1 that are no labels.
fn beside_labels(number: u32, value: Value<'_>, view: &mut SeriesView<'_>) -> Result<(), BadWrite> {
    match number {
        2 => view.samples.push(sample(value.bytes(number)?)?),
        3 => view.exemplars += 1,
        4 => view.histograms += 1,
        KIND_FIELD => view.kind = own_kind_of(value.varint(number)?),
        _ => {}
    }
    if view.samples.len() > SAMPLES_MAX { Err(BadWrite::TooMany) } else { Ok(()) }
}

fn series_v2<'b>(
    bytes: &'b [u8],
    symbols: &[&'b str],
    view: &mut SeriesView<'b>,
) -> Result<(), BadWrite> {
    let mut name = None;
    let mut refer = |number: u64, view: &mut SeriesView<'b>| {
        let symbol = usize::try_from(number).ok().and_then(|at| symbols.get(at)).copied();
        let symbol = symbol.ok_or(BadWrite::Symbol)?;
        match name.take() {
            None => name = Some(symbol),
            Some(name) => push_label(view, name, symbol),
        }
        Ok::<(), BadWrite>(())
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            // Packed, as the specification has it; or one by one, as any protobuf reader must take it.
            (1, Value::Bytes(packed)) => {
                let mut packed = Reader::new(packed);
                while let Some(number) = packed.packed()? {
                    refer(number, view)?;
                }
            }
            (1, _) => refer(value.varint(number)?, view)?,
            (2, _) => view.samples.push(sample(value.bytes(number)?)?),
            (3, _) => view.histograms += 1,
            (4, _) => view.exemplars += 1,
            (5, _) => view.kind = kind(value.bytes(number)?)?,
            _ => {}
        }
        if view.samples.len() > SAMPLES_MAX {
            return Err(BadWrite::TooMany);
        }
    }
    if name.is_some() { Err(BadWrite::Symbol) } else { Ok(()) }
}

/// One more than the bound is kept, so that the check sees that there were too many.
fn push_label<'b>(view: &mut SeriesView<'b>, name: &'b str, value: &'b str) {
    if view.labels.len() <= LABELS_MAX {
        view.labels.push((name, value));
    }
}

fn sample(bytes: &[u8]) -> Result<Sample, BadWrite> {
    let mut sample = Sample { at_ms: 0, value: 0.0 };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => sample.value = f64::from_bits(value.fixed64(number)?),
            2 => sample.at_ms = value.varint(number)?.cast_signed(),
            _ => {}
        }
    }
    Ok(sample)
}

fn kind(bytes: &[u8]) -> Result<Kind, BadWrite> {
    let mut kind = Kind::Unknown;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            kind = kind_of(value.varint(number)?);
        }
    }
    Ok(kind)
}

/// Sees whether metadata of version 1 is any.
fn family(bytes: &[u8]) -> Result<(), BadWrite> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => drop(value.varint(number)?),
            2 | 4 | 5 => drop(value.text(number)?),
            _ => {}
        }
    }
    Ok(())
}

/// By version 2's numbers of types.
const fn kind_of(number: u64) -> Kind {
    match number {
        1 => Kind::Counter,
        2 => Kind::Gauge,
        3..=5 => Kind::Histogram,
        _ => Kind::Unknown,
    }
}

/// Numbers of our own stand beyond those.
const fn own_kind_of(number: u64) -> Kind {
    match number {
        100 => Kind::Increase,
        101 => Kind::Bin,
        102 => Kind::BinIncrease,
        other => kind_of(other),
    }
}

const fn number_of(kind: Kind) -> u64 {
    match kind {
        Kind::Unknown => 0,
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::Increase => 100,
        Kind::Bin => 101,
        Kind::BinIncrease => 102,
    }
}

fn symbols(message: &[u8]) -> Result<Vec<&str>, BadWrite> {
    let mut symbols = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, value)) = reader.field()? {
        if number == 4 {
            if symbols.len() == SYMBOLS_MAX {
                return Err(BadWrite::TooManySymbols);
            }
            symbols.push(value.text(number)?);
        }
    }
    Ok(symbols)
}

/// Appends a label to a series of a version 1 message.
pub fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = |text: &str| 1 + wire::varint_len(text.len() as u64) + text.len();
    out.push(LABEL_TAG);
    wire::put_varint(out, (length(name) + length(value)) as u64);
    wire::put_bytes(out, 1, name.as_bytes());
    wire::put_bytes(out, 2, value.as_bytes());
}

/// Appends a series to a version 1 message.
pub fn put_series<'l>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    samples: &[Sample],
) {
    put_typed_series(out, labels, samples, Kind::Unknown);
}

/// The same, with what it is said to be.
pub fn put_typed_series<'l>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    samples: &[Sample],
    kind: Kind,
) {
    let (mut series, mut part) = (Vec::new(), Vec::new());
    for (name, value) in labels {
        put_label(&mut series, name, value);
    }
    for sample in samples {
        part.clear();
        wire::put_double(&mut part, 1, sample.value);
        wire::put_number(&mut part, 2, sample.at_ms.cast_unsigned());
        wire::put_bytes(&mut series, 2, &part);
    }
    let number = number_of(kind);
    if number != 0 {
        wire::put_number(&mut series, KIND_FIELD, number);
    }
    wire::put_bytes(out, 1, &series);
}

#[cfg(test)]
mod tests;
