//! Tests of the remote-write messages.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::detection::intake::sample::{NAME, STALE_BITS};

/// Labels and samples of one series.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a [Sample]);

fn v1(series: &[Row<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, samples) in series {
        put_series(&mut out, labels.iter().copied(), samples);
    }
    out
}

fn v2(symbols: &[&str], refs: &[u64], samples: &[Sample], kind: u64) -> Vec<u8> {
    let (mut out, mut series, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for symbol in symbols {
        wire::put_bytes(&mut out, 4, symbol.as_bytes());
    }
    refs.iter().for_each(|r| wire::put_varint(&mut part, *r));
    wire::put_bytes(&mut series, 1, &part);
    for sample in samples {
        part.clear();
        wire::put_double(&mut part, 1, sample.value);
        wire::put_number(&mut part, 2, sample.at_ms.cast_unsigned());
        wire::put_bytes(&mut series, 2, &part);
    }
    part.clear();
    wire::put_number(&mut part, 1, kind);
    wire::put_bytes(&mut series, 5, &part);
    wire::put_bytes(&mut out, 5, &series);
    out
}

fn all(version: Version, message: &[u8]) -> Result<Vec<SeriesView<'_>>, BadWrite> {
    let mut found = Vec::new();
    read(version, message, |view, _| found.push(view.clone()))?;
    Ok(found)
}

const AT: Sample = Sample { at_ms: 1_700_000_000_000, value: 2.5 };

#[test]
fn both_versions_say_the_same() {
    let end = Sample { at_ms: -1, value: f64::from_bits(STALE_BITS) };
    let one = v1(&[(&[(NAME, "up"), ("job", "web")], &[AT, end])]);
    let two = v2(&["", NAME, "up", "job", "web"], &[1, 2, 3, 4], &[AT, end], 2);
    for (version, message, kind) in
        [(Version::V1, &one, Kind::Unknown), (Version::V2, &two, Kind::Gauge)]
    {
        let read = all(version, message).unwrap();
        assert_eq!(read[0].labels, [(NAME, "up"), ("job", "web")]);
        assert_eq!((read[0].samples[0], read[0].samples[1].at_ms), (AT, -1));
        assert!(read[0].samples[1].stale() && !read[0].samples[0].stale());
        assert_eq!(read[0].kind, kind);
    }
}

/// Metadata of version 1, in a request.
fn family_told(kind: u64, texts: &[(u32, &[u8])]) -> Vec<u8> {
    let (mut out, mut family) = (Vec::new(), Vec::new());
    wire::put_number(&mut family, 1, kind);
    texts.iter().for_each(|(field, text)| wire::put_bytes(&mut family, *field, text));
    wire::put_bytes(&mut out, 3, &family);
    out
}

#[test]
fn metadata_of_version_1_is_counted_and_checked() {
    // As Prometheus sends it: a message of its own, without samples.
    let texts: [(u32, &[u8]); 3] = [(2, b"up"), (4, b"Whether it is up."), (5, b"")];
    let told = [family_told(2, &texts), family_told(7, &texts[..1]), family_told(99, &[])].concat();
    let expected = Survey { families: 3, ..Survey::default() };
    assert_eq!(survey(Version::V1, &told), Ok(expected));
    assert_eq!(skim(Version::V1, &told, |_, _| unreachable!("it has no series")), Ok(expected));
    // Beside samples it changes nothing about them; of version 2 the field is none.
    let both = [told.clone(), v1(&[(&[(NAME, "up")], &[AT])])].concat();
    let read = all(Version::V1, &both).unwrap();
    assert_eq!((read.len(), read[0].kind), (1, Kind::Unknown));
    assert_eq!(survey(Version::V2, &told), Ok(Survey::default()));
    // Malformed it is refused, as samples are.
    for bad in [
        family_told(2, &[(2, &[0xff])]),
        family_told(2, &[(1, b"gauge")]),
        [told.as_slice(), &[0x1a, 0x05, 0x08]].concat(),
        [told.as_slice(), &[0x18, 0x01]].concat(),
    ] {
        assert!(matches!(survey(Version::V1, &bad), Err(BadWrite::Wire(_))), "{bad:02x?}");
    }
    let many = [0x1a, 0x00].repeat(FAMILIES_MAX + 1);
    assert_eq!(survey(Version::V1, &many), Err(BadWrite::TooManyFamilies));
}

#[test]
fn bad_messages_are_named() {
    let refused = |version, message: &[u8]| all(version, message).unwrap_err();
    assert_eq!(refused(Version::V2, &v2(&[""], &[0, 7], &[], 0)), BadWrite::Symbol);
    assert_eq!(refused(Version::V2, &v2(&[""], &[0], &[], 0)), BadWrite::Symbol);
    let mut cut = v1(&[(&[(NAME, "up")], &[AT])]);
    cut.truncate(cut.len() - 1);
    assert_eq!(refused(Version::V1, &cut), BadWrite::Wire(BadWire::CutOff));
    assert_eq!(
        refused(Version::V1, b"\x08\x01\x0a\x04\x0a\x02\x08\x01"),
        BadWrite::Wire(BadWire::WrongForm(1))
    );
    let empty = [0x0a, 0x00].repeat(SERIES_MAX + 1);
    assert_eq!(refused(Version::V1, &empty), BadWrite::TooMany);
    assert_eq!(
        refused(Version::V2, &[0x22, 0x00].repeat(SYMBOLS_MAX + 1)),
        BadWrite::TooManySymbols
    );
    // A series of endless samples is given up, not gathered.
    let mut samples = Vec::new();
    wire::put_bytes(&mut samples, 1, &[0x12, 0x00].repeat(SAMPLES_MAX + 1));
    assert_eq!(refused(Version::V1, &samples), BadWrite::TooMany);
}

#[test]
fn ten_thousand_labels_cost_no_more_than_the_bound() {
    let names: Vec<String> = (0..10_000).map(|i| format!("l{i}")).collect();
    let mut out = Vec::new();
    put_series(&mut out, names.iter().map(|name| (name.as_str(), "v")), &[AT]);
    assert_eq!(all(Version::V1, &out).unwrap()[0].labels.len(), LABELS_MAX + 1);
}

#[test]
fn blocks_are_opened_within_bounds() {
    let message = v1(&[(&[(NAME, "up")], &[AT])]);
    let block = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    assert_eq!(open(&block).unwrap(), message);
    assert!(matches!(open(b"\xff\xff\xff\xff\xff"), Err(BadWrite::Snappy(_))));
    // A bomb: 64 MiB of zeros in a few hundred KiB, and one that says it is small.
    let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 64 << 20]).unwrap();
    assert_eq!(open(&bomb), Err(BadWrite::TooLarge(64 << 20)));
    let mut liar = vec![8];
    liar.extend_from_slice(&bomb[4..]);
    assert!(matches!(open(&liar), Err(BadWrite::Snappy(_))));
}

/// What a skimming walk sees once labels are read.
fn skimmed(message: &[u8]) -> Result<Vec<SeriesView<'_>>, BadWrite> {
    let mut found = Vec::new();
    skim(Version::V1, message, |view, _| {
        read_labels(view)?;
        found.push(view.clone());
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn labels_in_one_piece_are_the_key_and_scattered_ones_are_read() {
    let whole = v1(&[(&[(NAME, "up"), ("job", "web")], &[AT])]);
    let mut key = Vec::new();
    all(Version::V1, &whole).unwrap()[0].key(&mut key);
    let mut unread = Vec::new();
    skim(Version::V1, &whole, |view, _| {
        assert!(view.labels.is_empty());
        unread = view.unread.to_vec();
        assert_eq!(name(view)?, "up");
        Ok(())
    })
    .unwrap();
    assert_eq!(unread, key);
    // A sample between two labels, as nobody sends it.
    let (mut series, mut scattered) = (Vec::new(), Vec::new());
    put_label(&mut series, NAME, "up");
    wire::put_bytes(&mut series, 2, &[]);
    put_label(&mut series, "job", "web");
    wire::put_bytes(&mut scattered, 1, &series);
    skim(Version::V1, &scattered, |view, _| {
        assert_eq!((view.unread, view.labels.len(), view.samples.len()), (&[][..], 2, 1));
        Ok(())
    })
    .unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for version in [Version::V1, Version::V2] {
            let read = read(version, &bytes, |view, _| { view.check().unwrap_or_default(); });
            prop_assert!(read.is_err() || read.is_ok_and(|s| s.series <= bytes.len()));
        }
        prop_assert!(open(&bytes).map_or(0, |opened| opened.len()) <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn damage_is_refused_or_read(at in 0_usize..200, to in any::<u8>()) {
        let mut message = v1(&[(&[(NAME, "up"), ("job", "web")], &[AT; 3]), (&[(NAME, "x")], &[AT])]);
        let at = at % message.len();
        message[at] = to;
        let read = all(Version::V1, &message);
        let surveyed = survey(Version::V1, &message);
        prop_assert_eq!(read.as_ref().map(Vec::len), surveyed.as_ref().map(|s| s.series));
        if let Ok(series) = &read {
            prop_assert!(series.len() <= 2 + message.len());
        }
        match (read, skimmed(&message)) {
            (Ok(read), Ok(skimmed)) => {
                let shown = |all: &[SeriesView<'_>]| all.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>();
                prop_assert_eq!(shown(&read), shown(&skimmed));
            }
            (read, skimmed) => prop_assert_eq!(read.is_err(), skimmed.is_err()),
        }
    }

    #[test]
    fn what_is_put_is_read(
        labels in proptest::collection::btree_map("[a-z]{1,8}", "[a-z0-9]{1,8}", 0..8),
        values in proptest::collection::vec((any::<i64>(), any::<f64>()), 0..8),
    ) {
        let samples: Vec<Sample> =
            values.iter().map(|(at_ms, value)| Sample { at_ms: *at_ms, value: *value }).collect();
        let mut out = Vec::new();
        put_series(&mut out, labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), &samples);
        let read = all(Version::V1, &out).unwrap();
        prop_assert_eq!(read[0].labels.len(), labels.len());
        let bits = |s: &[Sample]| s.iter().map(|s| (s.at_ms, s.value.to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read[0].samples), bits(&samples));
    }
}
