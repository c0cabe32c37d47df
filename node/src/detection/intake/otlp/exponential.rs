//! OTLP's exponential histograms, as counts of single buckets. Pure.
//!
//! ```text
//!   1 attributes, 3 time, 4 count, 5 sum, 6 scale, 7 zeros, 8 positive{1 offset, 2 counts}, 9 negative, 10 flags
//!
//!   bucket i of scale s: (2^(i / 2^s), 2^((i+1) / 2^s)]     ─► all of them at scale 2: four to each doubling
//! ```
//!
//! A sender lowers its scale as its values spread, and shows the buckets alone in which something lies. So all scales
//! are brought to one (which merges finer buckets, exactly), and each bucket is told by itself ([`Kind::Bin`]): one that
//! appears has begun at zero, which the sum of all below it has not. A quantile is exact to its bucket, some 19 %.
//! Coarser buckets are read of increases alone: of a count that goes on, all that lies in a bucket would seem to have
//! come when it took in its neighbours.
//! Invariant: whatever the bytes, no more than [`BINS_MAX`] buckets to each side of zero are held.

use std::collections::BTreeMap;

use super::{
    BadOtlp, Labels, NO_VALUE_FLAG, Reader, Sample, Series, Translated, Value, attributes, millis,
    put, told,
};
use crate::detection::intake::sample::Kind;

/// Buckets to a doubling: two to this.
const SCALE: i64 = 2;
const TO_A_DOUBLING: f64 = 4.0;
/// Buckets in which something lies, of one point: forty doublings to each side of zero, as SDKs have at most.
pub const BINS_MAX: usize = 320;
/// The largest power of two that is a number, in buckets.
const END_MAX: i64 = 1_023 * 4;

/// Reads a point; its numbers are increases or not.
pub(super) fn point(
    point: &[u8],
    increase: bool,
    name: &str,
    resource: &Labels<'_>,
    out: &mut Translated,
) -> Result<(), BadOtlp> {
    let (mut at_ms, mut count, mut sum, mut flags) = (0, 0_u64, None, 0);
    let (mut scale, mut zeros) = (0, 0_u64);
    let mut fields = Reader::new(point);
    while let Some((number, value)) = fields.field()? {
        match number {
            3 => at_ms = millis(value.fixed64(number)?),
            4 => count = value.fixed64(number)?,
            5 => sum = Some(f64::from_bits(value.fixed64(number)?)),
            6 => scale = signed(value.varint(number)?),
            7 => zeros = value.fixed64(number)?,
            10 => flags = value.varint(number)?,
            _ => {}
        }
    }
    if !increase && scale < SCALE {
        out.unread += 1;
        return Ok(());
    }
    // By where they end, positive ones and negative ones.
    let mut bins = [BTreeMap::new(), BTreeMap::new()];
    let mut fields = Reader::new(point);
    while let Some((number, value)) = fields.field()? {
        let Some(side) = [8, 9].iter().position(|field| *field == number) else { continue };
        if !merge(value.bytes(number)?, scale, side == 1, &mut bins[side])? {
            out.unread += 1;
            return Ok(());
        }
    }
    if !out.increases {
        out.unread += 1;
        return Ok(());
    }
    let mut labels = Labels::new();
    attributes(point, 1, &mut labels)?;
    let (of_all, of_one) =
        if increase { (Kind::Increase, Kind::BinIncrease) } else { (Kind::Histogram, Kind::Bin) };
    let mut each = |name: &str, le: Option<&str>, kind, value| {
        let extra = le.map(|le| ("le", le));
        let series = Series { name, own: &labels, resource, extra, kind };
        put(out, &series, told(Sample { at_ms, value }, flags))
    };
    each(&format!("{name}_count"), None, of_all, count as f64)?;
    if let Some(sum) = sum.or((flags & NO_VALUE_FLAG != 0).then_some(0.0)) {
        each(&format!("{name}_sum"), None, of_all, sum)?;
    }
    let bucket = format!("{name}_bucket");
    let mut inside = zeros;
    if zeros > 0 {
        each(&bucket, Some("0"), of_one, zeros as f64)?;
    }
    for (side, sign) in bins.iter().zip([1.0, -1.0]) {
        for (end, count) in side {
            inside = inside.saturating_add(*count);
            let le = written(sign * (*end as f64 / TO_A_DOUBLING).exp2());
            each(&bucket, Some(&le), of_one, *count as f64)?;
        }
    }
    each(&bucket, Some("+Inf"), of_one, count.saturating_sub(inside) as f64)
}

/// Adds buckets up by where they end at [`SCALE`]: of negative ones that is where they begin to be small. Gives
/// whether they are few enough.
fn merge(
    buckets: &[u8],
    scale: i64,
    negative: bool,
    into: &mut BTreeMap<i64, u64>,
) -> Result<bool, BadOtlp> {
    let mut offset = 0;
    let mut fields = Reader::new(buckets);
    while let Some((number, value)) = fields.field()? {
        if number == 1 {
            offset = signed(value.varint(number)?);
        }
    }
    let mut index = offset;
    let mut add = |count: u64| {
        if count > 0 {
            let of_end = into.entry(end(index, scale, negative)).or_insert(0_u64);
            *of_end = of_end.saturating_add(count);
        }
        index = index.saturating_add(1);
        into.len() <= BINS_MAX
    };
    let mut few = true;
    let mut fields = Reader::new(buckets);
    while let Some((number, value)) = fields.field()?.filter(|_| few) {
        match (number, value) {
            (2, Value::Bytes(packed)) => {
                let mut packed = Reader::new(packed);
                while let Some(count) = packed.packed()?.filter(|_| few) {
                    few = add(count);
                }
            }
            (2, _) => few = add(value.varint(number)?),
            _ => {}
        }
    }
    Ok(few)
}

/// Where a bucket ends, in quarters of a doubling.
fn end(index: i64, scale: i64, negative: bool) -> i64 {
    let finer = scale - SCALE;
    let (first, last) = if finer >= 0 {
        let merged = index >> finer.min(63);
        (merged, merged + 1)
    } else {
        // Scales go down to -10; whatever it says, it stays a number.
        let wider = 1_i64 << (-finer).min(20);
        (index.saturating_mul(wider), index.saturating_add(1).saturating_mul(wider))
    };
    (if negative { first } else { last }).clamp(-END_MAX, END_MAX)
}

/// `sint32`.
fn signed(number: u64) -> i64 {
    let number = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
    number.clamp(i64::from(i32::MIN), i64::from(i32::MAX))
}

/// A bound as a label: without hundreds of zeros.
fn written(bound: f64) -> String {
    if (1e-6..1e15).contains(&bound.abs()) { bound.to_string() } else { format!("{bound:e}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn buckets_of_all_scales_end_at_the_same_bounds() {
        // (1, 2] at scale 0; (2^(3/4), 2] at 2; the last sixty-fourth before 2 at scale 6.
        for (index, scale) in [(0, 0), (3, 2), (63, 6)] {
            assert_eq!(end(index, scale, false), 4, "{index} at scale {scale}");
        }
        // [-2, -1) at scale 0 ends at -1; (0.5, 1] ends at 1.
        assert_eq!((end(0, 0, true), end(-1, 0, false), end(-1, 6, false)), (0, 0, 0));
        assert_eq!(end(0, -1, false), 8, "(1, 4]");
        for (index, scale) in [(i64::MAX, -30), (i64::MIN, -30), (i64::MAX, 0), (5, 90)] {
            assert!(end(index, scale, false).abs() <= END_MAX);
        }
        assert_eq!((signed(0), signed(1), signed(2), signed(3)), (0, -1, 1, -2));
        assert_eq!((written(0.5), written(1e-9)), ("0.5".to_owned(), "1e-9".to_owned()));
    }
}
