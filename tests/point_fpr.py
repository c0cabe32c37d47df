#!/usr/bin/env python3
"""Does a stated false-positive rate hold? Rows of `medic backtest detect` against labels.

    point_fpr.py ALPHA RESULTS=TRUTH... [--probation SHARE]

TRUTH is a folder of public data: nab (data/CATEGORY/FILE.csv and combined_windows.json), microsoft
(GROUP/NAME.csv with a column label) or hosts (MACHINE/labels.csv). RESULTS is what `medic backtest detect`
made of it (for nab: of nab/data), whose column p_value is read.

A row is normal when no label or window covers it. The point false-positive rate is the share of normal
rows with p_value <= ALPHA, after the first SHARE of each series (0.15; nothing is left out of hosts, which
have a train part). Printed: pooled over all rows, and the share of series with at most twice ALPHA.
"""
import csv
import json
import pathlib
import sys


def truths(folder):
    """(name, rows labelled normal, whether there is a train part) of each series."""
    windows = folder / "combined_windows.json"
    if windows.is_file():
        for name, spans in sorted(json.loads(windows.read_text()).items()):
            spans = [[text.split(".")[0] for text in span] for span in spans]
            with open(folder / "data" / name, newline="") as file:
                stamps = [row["timestamp"] for row in csv.DictReader(file)]
            yield name, [not any(a <= at <= b for a, b in spans) for at in stamps], False
        return
    for path in sorted(folder.glob("*/*.csv")):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or "label" not in rows[0]:
            continue
        hosts = path.name == "labels.csv"
        name = path.parent.name + ".csv" if hosts else str(path.relative_to(folder))
        yield name, [row["label"] == "0" for row in rows], hosts


def main(arguments):
    share = 0.15
    if "--probation" in arguments:
        at = arguments.index("--probation")
        share = float(arguments[at + 1])
        del arguments[at:at + 2]
    if len(arguments) < 2 or not all("=" in pair for pair in arguments[1:]):
        sys.exit(__doc__)
    alpha = float(arguments[0])
    total, low, series, kept = 0, 0, 0, 0
    for pair in arguments[1:]:
        results, truth = map(pathlib.Path, pair.split("=", 1))
        rows, found, held, count = 0, 0, 0, 0
        for name, normal, trained in truths(truth):
            with open(results / name, newline="") as file:
                p_values = [float(row["p_value"]) for row in csv.DictReader(file)]
            if len(p_values) != len(normal):
                sys.exit("%s: %d rows of results, %d of truth" % (name, len(p_values), len(normal)))
            first = 0 if trained else int(share * len(normal))
            judged = [p for p, usual in zip(p_values[first:], normal[first:]) if usual]
            false = sum(p <= alpha for p in judged)
            rows, found, count = rows + len(judged), found + false, count + 1
            held += false <= 2 * alpha * len(judged)
        print("%-24s %7d normal rows, %.5f of them at %g; %d of %d series within twice that"
              % (truth.name, rows, found / rows, alpha, held, count))
        total, low, series, kept = total + rows, low + found, series + count, kept + held
    print("%-24s %7d normal rows, %.5f of them at %g; %d of %d series within twice that (%.1f %%)"
          % ("all", total, low / total, alpha, kept, series, 100 * kept / series))


if __name__ == "__main__":
    main(sys.argv[1:])
