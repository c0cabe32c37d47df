//! OTLP metrics (`ExportMetricsServiceRequest`, protobuf) as a remote-write message. Pure.
//!
//! ```text
//!   1 ResourceMetrics { 1 Resource{1 attributes}, 2 ScopeMetrics { 2 Metric {
//!       1 name, 5 Gauge{1 points}, 7 Sum{1 points, 2 temporality, 3 monotonic}, 9 Histogram{1, 2},
//!       10 ExponentialHistogram{1, 2}, 11 Summary{1} } } }
//! ```
//!
//! Names as OpenTelemetry's own translation to Prometheus has them, without its suffixes for units: `.` and all
//! other odd characters become `_`. Of a resource `service.name` gives `service` and `job`, and
//! `service.instance.id` gives `instance`. Cumulative sums and histograms are counters; of deltas it is told that they
//! are increases, which whoever watches the series adds up. Exponential histograms become counts of single buckets
//! ([`exponential`]); summaries quantiles, `_sum` and `_count`. What has no temporality, and changes of sums that may shrink
//! (nobody knows from where), are counted as not read.
//! A point that says that there is no value any more ends its series, as Prometheus' stale marker does.

mod exponential;

use std::{borrow::Cow, io::Read as _};

use super::{
    sample::{Kind, LABELS_MAX, NAME, STALE_BITS, Sample},
    wire::{BadWire, Reader, Value},
    write::{MESSAGE_BYTES_MAX, SAMPLES_MAX, put_typed_series},
};

pub use exponential::BINS_MAX;

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: u64 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// A point of which its sender says that there is no value.
const NO_VALUE_FLAG: u64 = 1;

/// A body that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOtlp {
    /// Not gzip.
    #[error("the body is no gzip: {0}")]
    Gzip(String),
    /// Too large when opened.
    #[error(
        "the body is more than {MESSAGE_BYTES_MAX} bytes when opened: send fewer points at a time"
    )]
    TooLarge,
    /// Not the message.
    #[error("the body is no OTLP message: {0}")]
    Wire(#[from] BadWire),
    /// Too many lines.
    #[error(
        "more than {} lines in one message: send fewer at a time",
        super::log::records::LINES_MAX
    )]
    TooManyLines,
    /// Too many points.
    #[error("more than {SAMPLES_MAX} points in one message: send fewer at a time")]
    TooMany,
}

/// A body, translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// A version 1 message.
    pub message: Vec<u8>,
    /// Points that are not read.
    pub unread: usize,
    /// Samples in the message.
    pub samples: usize,
    /// Increases and counts of single buckets may be told of.
    increases: bool,
}

pub(super) type Labels<'b> = Vec<(Cow<'b, str>, Cow<'b, str>)>;

/// Opens a gzip body within bounds.
///
/// # Errors
/// When it is none, or too large.
pub fn open(body: &[u8]) -> Result<Vec<u8>, BadOtlp> {
    let mut opened = Vec::new();
    let mut bounded = flate2::read::GzDecoder::new(body).take(MESSAGE_BYTES_MAX as u64 + 1);
    let read = bounded.read_to_end(&mut opened);
    read.map_err(|error| BadOtlp::Gzip(error.to_string()))?;
    if opened.len() > MESSAGE_BYTES_MAX { Err(BadOtlp::TooLarge) } else { Ok(opened) }
}

/// Translates a message. `increases`: whoever it is for knows increases, and counts of single buckets.
///
/// # Errors
/// When it cannot be taken.
pub fn translate(body: &[u8], increases: bool) -> Result<Translated, BadOtlp> {
    let mut out = Translated { increases, ..Translated::default() };
    let mut reader = Reader::new(body);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            resource_metrics(value.bytes(number)?, &mut out)?;
        }
    }
    Ok(out)
}

/// The labels of what metrics or logs are of. It may stand behind them: protobuf has no order.
pub(super) fn resource(bytes: &[u8]) -> Result<Labels<'_>, BadOtlp> {
    let mut resource = Labels::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            attributes(value.bytes(number)?, 1, &mut resource)?;
        }
    }
    named_by_resource(&mut resource);
    Ok(resource)
}

fn resource_metrics(bytes: &[u8], out: &mut Translated) -> Result<(), BadOtlp> {
    let resource = resource(bytes)?;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != 2 {
            continue;
        }
        let mut scope = Reader::new(value.bytes(number)?);
        while let Some((number, value)) = scope.field()? {
            if number == 2 {
                metric(value.bytes(number)?, &resource, out)?;
            }
        }
    }
    Ok(())
}

/// `service`, `job` and `instance`, by which sources find instances.
pub(super) fn named_by_resource(resource: &mut Labels<'_>) {
    for (from, to) in
        [("service_name", "service"), ("service_name", "job"), ("service_instance_id", "instance")]
    {
        let found = resource.iter().find(|(name, _)| name == from).map(|(_, value)| value.clone());
        if let Some(value) = found
            && !resource.iter().any(|(name, _)| name == to)
        {
            resource.push((to.into(), value));
        }
    }
}

fn metric(bytes: &[u8], resource: &Labels<'_>, out: &mut Translated) -> Result<(), BadOtlp> {
    let mut name = Cow::Borrowed("");
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            name = legal(value.text(number)?);
        }
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            5 | 7 => points(value.bytes(number)?, number == 7, &name, resource, out)?,
            9 | 10 => {
                let read = if number == 9 { histogram_point } else { exponential::point };
                histogram(value.bytes(number)?, &name, resource, out, read)?;
            }
            11 => summary(value.bytes(number)?, &name, resource, out)?,
            _ => {}
        }
    }
    Ok(())
}

/// Of a sum or histogram the temporality, and whether a sum only ever grows.
fn aggregated(bytes: &[u8]) -> Result<(u64, bool), BadOtlp> {
    let (mut temporality, mut monotonic) = (0, false);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            2 => temporality = value.varint(number)?,
            3 => monotonic = value.varint(number)? != 0,
            _ => {}
        }
    }
    Ok((temporality, monotonic))
}

/// The sample, or the end of its series.
fn told(sample: Sample, flags: u64) -> Sample {
    let ended = flags & NO_VALUE_FLAG != 0;
    Sample { value: if ended { f64::from_bits(STALE_BITS) } else { sample.value }, ..sample }
}

fn points(
    bytes: &[u8],
    sum: bool,
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
) -> Result<(), BadOtlp> {
    let kind = match sum.then(|| aggregated(bytes)).transpose()? {
        None => Some(Kind::Gauge),
        Some((CUMULATIVE, true)) => Some(Kind::Counter),
        // A sum that may shrink, such as of connections that are open.
        Some((CUMULATIVE, false)) => Some(Kind::Gauge),
        Some((DELTA, true)) if out.increases => Some(Kind::Increase),
        Some(_) => None,
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != 1 {
            continue;
        }
        let Some(kind) = kind else {
            out.unread += 1;
            continue;
        };
        let (mut sample, mut flags) = (Sample { at_ms: 0, value: f64::NAN }, 0);
        let mut labels = Labels::new();
        let point = value.bytes(number)?;
        let mut fields = Reader::new(point);
        while let Some((number, value)) = fields.field()? {
            match number {
                3 => sample.at_ms = millis(value.fixed64(number)?),
                4 => sample.value = f64::from_bits(value.fixed64(number)?),
                // Counts beyond 2^53 lose their last digits, as in Prometheus.
                6 => sample.value = value.fixed64(number)?.cast_signed() as f64,
                8 => flags = value.varint(number)?,
                _ => {}
            }
        }
        attributes(point, 7, &mut labels)?;
        let series = Series { name, own: &labels, resource, extra: None, kind };
        put(out, &series, told(sample, flags))?;
    }
    Ok(())
}

/// Reads a point of a histogram; its numbers are increases or not.
type ReadPoint = fn(&[u8], bool, &str, &Labels<'_>, &mut Translated) -> Result<(), BadOtlp>;

fn histogram(
    bytes: &[u8],
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
    read: ReadPoint,
) -> Result<(), BadOtlp> {
    let (temporality, _) = aggregated(bytes)?;
    let readable = temporality == CUMULATIVE || (temporality == DELTA && out.increases);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != 1 {
            continue;
        }
        if readable {
            read(value.bytes(number)?, temporality == DELTA, name, resource, out)?;
        } else {
            out.unread += 1;
        }
    }
    Ok(())
}

fn histogram_point(
    point: &[u8],
    increase: bool,
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
) -> Result<(), BadOtlp> {
    let (mut at_ms, mut count, mut sum, mut flags) = (0, 0, None, 0);
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    let mut fields = Reader::new(point);
    while let Some((number, value)) = fields.field()? {
        match (number, value) {
            (3, _) => at_ms = millis(value.fixed64(number)?),
            (4, _) => count = value.fixed64(number)?,
            (5, _) => sum = Some(f64::from_bits(value.fixed64(number)?)),
            (6, Value::Bytes(packed)) => counts.extend(fixed(packed)),
            (6, _) => counts.push(value.fixed64(number)?),
            (7, Value::Bytes(packed)) => bounds.extend(fixed(packed).map(f64::from_bits)),
            (7, _) => bounds.push(f64::from_bits(value.fixed64(number)?)),
            (10, _) => flags = value.varint(number)?,
            _ => {}
        }
    }
    let mut labels = Labels::new();
    attributes(point, 9, &mut labels)?;
    let kind = if increase { Kind::Increase } else { Kind::Histogram };
    let mut each = |name: &str, le: Option<&str>, value: f64| {
        let extra = le.map(|le| ("le", le));
        let series = Series { name, own: &labels, resource, extra, kind };
        put(out, &series, told(Sample { at_ms, value }, flags))
    };
    each(&format!("{name}_count"), None, count as f64)?;
    if let Some(sum) = sum.or((flags & NO_VALUE_FLAG != 0).then_some(0.0)) {
        each(&format!("{name}_sum"), None, sum)?;
    }
    let bucket = format!("{name}_bucket");
    if flags & NO_VALUE_FLAG != 0 {
        // A point without a value need not say how much was in its buckets.
        counts.resize(bounds.len(), 0);
    }
    let mut below = 0_u64;
    for (bound, count) in bounds.iter().zip(&counts) {
        below = below.saturating_add(*count);
        each(&bucket, Some(&bound.to_string()), below as f64)?;
    }
    each(&bucket, Some("+Inf"), count as f64)
}

fn summary(
    bytes: &[u8],
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
) -> Result<(), BadOtlp> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            summary_point(value.bytes(number)?, name, resource, out)?;
        }
    }
    Ok(())
}

fn summary_point(
    point: &[u8],
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
) -> Result<(), BadOtlp> {
    let (mut at_ms, mut count, mut sum, mut flags) = (0, 0, 0.0, 0);
    let mut fields = Reader::new(point);
    while let Some((number, value)) = fields.field()? {
        match number {
            3 => at_ms = millis(value.fixed64(number)?),
            4 => count = value.fixed64(number)?,
            5 => sum = f64::from_bits(value.fixed64(number)?),
            8 => flags = value.varint(number)?,
            _ => {}
        }
    }
    let mut labels = Labels::new();
    attributes(point, 7, &mut labels)?;
    let mut each = |name: &str, quantile: Option<&str>, value: f64| {
        let extra = quantile.map(|quantile| ("quantile", quantile));
        let series = Series { name, own: &labels, resource, extra, kind: Kind::Histogram };
        put(out, &series, told(Sample { at_ms, value }, flags))
    };
    each(&format!("{name}_count"), None, count as f64)?;
    each(&format!("{name}_sum"), None, sum)?;
    let mut fields = Reader::new(point);
    while let Some((number, value)) = fields.field()? {
        if number != 6 {
            continue;
        }
        let (mut quantile, mut of_it) = (0.0, 0.0);
        let mut pair = Reader::new(value.bytes(number)?);
        while let Some((number, value)) = pair.field()? {
            match number {
                1 => quantile = f64::from_bits(value.fixed64(number)?),
                2 => of_it = f64::from_bits(value.fixed64(number)?),
                _ => {}
            }
        }
        each(name, Some(&quantile.to_string()), of_it)?;
    }
    Ok(())
}

/// What a point is of.
struct Series<'s> {
    name: &'s str,
    own: &'s Labels<'s>,
    resource: &'s Labels<'s>,
    /// The bucket or quantile.
    extra: Option<(&'s str, &'s str)>,
    kind: Kind,
}

fn put(out: &mut Translated, series: &Series<'_>, sample: Sample) -> Result<(), BadOtlp> {
    let Series { name, own, resource, extra, kind } = *series;
    out.samples += 1;
    // Every point carries its resource's labels: what comes out may be larger than what came in.
    if out.samples > SAMPLES_MAX || out.message.len() > MESSAGE_BYTES_MAX {
        return Err(BadOtlp::TooMany);
    }
    let given = [(NAME, name)].into_iter().chain(extra);
    let others = resource.iter().filter(|(name, _)| !own.iter().any(|(known, _)| known == name));
    let others = own.iter().chain(others).map(|(name, value)| (name.as_ref(), value.as_ref()));
    put_typed_series(&mut out.message, given.chain(others), &[sample], kind);
    Ok(())
}

/// The attributes in these fields of a message; later ones of a name that is there already are left
/// out, and so is what is no plain value.
pub(super) fn attributes<'b>(
    bytes: &'b [u8],
    field: u32,
    into: &mut Labels<'b>,
) -> Result<(), BadOtlp> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != field {
            continue;
        }
        let (mut name, mut text) = (Cow::Borrowed(""), None);
        let mut pair = Reader::new(value.bytes(number)?);
        while let Some((number, value)) = pair.field()? {
            match number {
                1 => name = legal(value.text(number)?),
                2 => text = plain(value.bytes(number)?)?,
                _ => {}
            }
        }
        let known = into.iter().any(|(known, _)| *known == name);
        if let Some(text) = text
            && !known
            && into.len() < LABELS_MAX
        {
            into.push((name, text));
        }
    }
    Ok(())
}

pub(super) fn plain(bytes: &[u8]) -> Result<Option<Cow<'_, str>>, BadOtlp> {
    let mut text = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        text = match number {
            1 => Some(Cow::Borrowed(value.text(number)?)),
            2 => Some((value.varint(number)? != 0).to_string().into()),
            3 => Some(value.varint(number)?.cast_signed().to_string().into()),
            4 => Some(f64::from_bits(value.fixed64(number)?).to_string().into()),
            _ => None,
        };
    }
    Ok(text)
}

/// A name as Prometheus writes it.
fn legal(name: &str) -> Cow<'_, str> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if name.chars().all(good) && !digit {
        return Cow::Borrowed(name);
    }
    let start = if digit { "_" } else { "" };
    let rest = name.chars().map(|c| if good(c) { c } else { '_' });
    Cow::Owned(start.chars().chain(rest).collect())
}

pub(super) fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

fn fixed(packed: &[u8]) -> impl Iterator<Item = u64> {
    packed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
