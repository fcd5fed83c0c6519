"""Write the tables of the README and the documentation from committed JSON, between their markers.

python benchmarks/render.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import render_stage_one
import render_stage_two
from render_stage_one import table
from render_stage_two import percent

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.wording import between, listed

ROOT = Path(__file__).resolve().parents[1]


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return found


def frame_variants() -> str:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in _result("frame_variants")["runs"]:
        found.setdefault((run["variant"], run["split"]), []).append(run)
    rows = [
        [
            variant,
            split,
            str(len(runs)),
            " to ".join(map(str, sorted({min(epochs := [r["epochs"] for r in runs]), max(epochs)}))),
            percent([r["accuracy"] for r in runs]),
            f"{statistics.mean(r['f1_macro'] for r in runs):.1%}",
            str(runs[0]["n_test"]),
            f"{statistics.mean(r['seconds'] for r in runs):,.0f}",
        ]
        for (variant, split), runs in found.items()
    ]
    return table(["variant", "split", "seeds", "epochs", "accuracy, mean ± sd", "macro F1", "n", "s"], rows)


def _rows() -> list[dict[str, Any]]:
    """Return all rows; of a preset and split that several folders have, those of the first folder."""
    folders = [tables["table2"] for tables in _result("yardstick")["reproduced"]]
    first: dict[tuple[str, str], int] = {}
    for number, rows in enumerate(folders):
        for row in rows:
            first.setdefault((row["preset"], row["split"]), number)
    found = [row for i, rows in enumerate(folders) for row in rows if first[row["preset"], row["split"]] == i]
    splits = ("list 1", "list 2", "list 3", "group", "random", "leave-one:series")
    presets = ("paper", "native", "grid")
    return sorted(found, key=lambda r: (splits.index(_split_name(r["split"])), presets.index(r["preset"])))


def _accuracy(row: dict[str, Any]) -> str:
    spread = f" ± {row['figures']['accuracy_sd']:.1%}" if row["seeds"] > 1 else ""
    return f"{row['figures']['accuracy']:.1%}{spread}"


def reproduced() -> str:
    """For the README: a row a model of preset ``native``, in rooms that training knew and in others."""
    found = [row for row in _rows() if row["preset"] == "native" and _split_name(row["split"]).startswith("list")]
    rooms = {(row["backbone"], row["variant"]): row for row in _result("rooms")["rows"]}
    n = sum({row["split"]: row["n"] for row in found}.values())
    rows = []
    for model, of_model in _by_model(found).items():
        by_list = [row["figures"]["accuracy"] for row in of_model]
        told = rooms[model]
        rows.append([*model, _over_lists(by_list), "{:.1%} ({:.1%} to {:.1%})".format(told["accuracy"], *told["ci95"])])
    rows += default_backbone() + with_poses()
    known, new = f"rooms mostly known, n = {n:,}", f"rooms never seen, n = {_result('rooms')['n']:,}"
    titles = (f"{known} (lowest to highest list)", f"{new} (95 % interval)")
    return table(["features", "variant", *titles], rows)


def _over_lists(accuracies: Sequence[float]) -> str:
    return f"{statistics.mean(accuracies):.1%} ({min(accuracies):.1%} to {max(accuracies):.1%})"


def default_backbone() -> list[list[str]]:
    """The same of the backbone that is installed with the program; empty cells for what was not measured."""
    result = _result("default_backbone")
    rows = []
    for variant in dict.fromkeys(row["variant"] for row in result["rows"]):
        by_split = {row["split"]: row["accuracy"] for row in result["rows"] if row["variant"] == variant}
        by_list = [accuracy for split, accuracy in by_split.items() if split.startswith("list")]
        rooms = f"{by_split['rooms']:.1%}" if "rooms" in by_split else ""
        rows.append([f"{result['backbone']} (default)", variant, _over_lists(by_list), rooms])
    return rows


def with_poses() -> list[list[str]]:
    """The same of poses beside the default backbone."""
    found = [row for row in _result("poses")["rows"] if "+" in row["features"]]
    rooms = {row["variant"]: f"{row['accuracy']:.1%}" for row in found if row["split"] == "rooms"}
    return [
        [
            row["features"].replace("+", " + "),
            row["variant"],
            _over_lists(row["accuracies"]),
            rooms.get(row["variant"], "not measured"),
        ]
        for row in sorted(found, key=lambda row: row["variant"])
        if row["split"] == "lists"
    ]


def reproduced_all() -> str:
    """For the documentation: a row a model and split."""
    rows = [
        [
            _split_name(row["split"]),
            row["preset"],
            row["backbone"],
            row["variant"],
            str(row["seeds"]),
            _accuracy(row),
            f"{row['figures']['top5_accuracy']:.1%}",
            f"{row['figures']['f1_macro']:.1%}",
            f"{row['n']:,}",
            "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        ]
        for row in _rows()
    ]
    names = ("split", "preset", "features", "variant", "seeds", "accuracy, mean ± sd", "top-5", "macro F1", "n", "s")
    return "\n".join(_folded(f"All {len(rows)} rows", [table(list(names), rows)]))


def _split_name(rule: str) -> str:
    number = re.search(r"list0(\d)", rule)
    return f"list {number[1]}" if number else rule


def yardstick() -> str:
    """Heads, `mean` and logistic regression on the same features, then each pair of them."""
    result = _result("yardstick")
    rows = [r for r in result["rows"] if r["preset"] == "native"]
    first = [r for r in rows if r["variant"] == rows[0]["variant"] and r["backbone"] == rows[0]["backbone"]]
    sizes = (" / ".join(str(r[k]) for r in first) for k in ("n_val", "n_test"))
    lines = [_tested(rows), "", "Validation n = {}; test n = {}.".format(*sizes), ""]
    ordered = sorted(result["pairs"], key=lambda p: (p["other"] == "mean", p["backbone"], p["variant"]))
    return "\n".join([*lines, _pairs(ordered), "", *overlap(result["overlap"])])


def grid() -> str:
    """The same on the features of the preset `grid`."""
    result = _result("yardstick")
    lines = [_tested(r for r in result["rows"] if r["preset"] == "grid"), "", _pairs(result["grid_pairs"])]
    return "\n".join(lines)


def _tested(found: Iterable[dict[str, Any]]) -> str:
    cells = []
    for (backbone, variant), rows in _by_model(found).items():
        test = " / ".join(f"{r['test_accuracy']:.1%}" for r in rows)
        together = " / ".join(f"{r['together_accuracy']:.1%}" for r in rows if "together_accuracy" in r)
        cells.append([backbone, variant, f"{statistics.mean(r['val_accuracy'] for r in rows):.1%}", test, together])
    return table(["features", "model", "validation, mean of the lists", "test", "test of the seeds' mean"], cells)


def _pairs(pairs: Iterable[dict[str, Any]]) -> str:
    cells = [
        [
            pair["backbone"],
            f"{pair['variant']} minus {pair['other']}"
            + (f" on `{pair['other_preset']}`" if pair["preset"] != "native" else ""),
            "single seeds" if pair["seeds"] else "their mean probabilities",
            f"{100 * pair['difference']:+.1f}",
            "{:+.1f} to {:+.1f}".format(*(100 * end for end in pair["ci95"])),
            f"{pair['p']:.2g}",
            f"{pair['p_holm']:.2g}",
        ]
        for pair in pairs
    ]
    lines = [table(["features", "difference", "seeds", "points", "95 %", "p", "p, Holm"], cells)]
    return "\n".join(_folded(f"All {len(cells)} comparisons", lines))


def overlap(counts: dict[str, Any]) -> list[str]:
    """Say how many test clips of each split the choice of the recipe has seen."""

    rows = [
        [_split_name(rule), *(between(*t[name]) for name in ("n", "in_validation", "in_either"))]
        for rule, t in counts["tested"].items()
    ]
    text = f"The lists' validation sides, on which `native` was chosen, are {counts['validation']} different clips. "
    text += "How many of the test clips are among them:"
    return [text, "", table(["split", "test clips", "among these", "among these or the lists' training clips"], rows)]


def rooms() -> str:
    """What heads and the regression recognise in rooms that were left out, then each pair of them."""
    result = _result("rooms")
    spans = [
        [
            r["backbone"],
            r["variant"],
            f"{r['accuracy']:.1%}",
            "{:.1%} to {:.1%}".format(*r["ci95"]),
        ]
        for r in result["rows"]
    ]
    pairs = [
        [
            p["backbone"],
            f"{p['variant']} minus {p['other']}",
            f"{100 * p['difference']:+.1f}",
            "{:+.1f} to {:+.1f}".format(*(100 * end for end in p["ci95"])),
            f"{p['p']:.2g}",
            f"{p['p_holm']:.2g}",
        ]
        for p in result["pairs"]
    ]
    sizes = result["folds"]
    return "\n".join(
        [
            table(["features", "model", "accuracy", "95 %"], spans),
            "",
            f"n = {result['n']:,} clips in {len(sizes)} series; the largest has {sizes[0]} of them, the median "
            f"{statistics.median(sizes):.0f}.",
            "",
            table(["features", "models", "points", "95 %", "p", "p, Holm"], pairs),
        ]
    )


def calibration() -> str:
    """Say how far stated probabilities are from the truth, and what the threshold for "unknown" rejects wrongly."""
    names = ("ece_uncalibrated", "ece", "false_alarms")
    rows = (r for r in _result("yardstick")["rows"] if "ece" in r and r["preset"] == "native")
    cells = [
        [*model, *(f"{statistics.mean(r[name] for r in rows):.1%}" for name in names)]
        for model, rows in _by_model(rows).items()
    ]
    head = ["features", "model", "calibration error, before", "after", "known test clips rejected as unknown"]
    return "\n".join([table(head, cells), *unknown()])


def _by_model(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["backbone"], row["variant"]), []).append(row)
    return found


def together() -> str:
    """Say how sure three seeds are, alone and together, with and without a temperature on their mean."""
    rows = _result("together")["rows"]
    ways = ("single", "mean", "own temperature")
    cells = []
    for model, of_model in _by_model(rows).items():
        told = [
            {k: statistics.mean(r[way][k] for r in of_model) for k in r["single"]} for way in ways for r in of_model[:1]
        ]
        shares = [f"{t['confidence']:.1%}, {t['accuracy']:.1%}, {t['ece']:.1%}" for t in told]
        cells.append([*model, *shares, f"{told[-1]['false_alarms']:.1%}"])
    head = [
        "features",
        "model",
        *(f"{w}: confidence, accuracy, calibration error" for w in ("single seeds", "their mean", "with temperature")),
    ]
    nearer = sum(r["own temperature"]["ece"] < r["mean"]["ece"] for r in rows)
    temperatures = [r["temperature"] for r in rows]
    return "\n".join(
        [
            table([*head, "rejected as unknown"], cells),
            "",
            f"Means over the three lists (n = {_sizes(rows, 'n')} test, {_sizes(rows, 'n_val')} validation clips). "
            f"Temperatures {min(temperatures):.2f} to {max(temperatures):.2f}; in {nearer} of {len(rows)} cases the "
            "calibration error is lower with one.",
        ]
    )


def head_precision() -> str:
    """Put heads that learned in bf16 beside those that learned in float32."""
    rows, precisions = _result("head_precision")["rows"], ("fp32", "bf16")
    cells = []
    for model, of_model in [*_by_model(rows).items(), (("", "**all**"), rows)]:
        means = [
            [statistics.mean(r[precision][k] for r in of_model) for k in ("accuracy", "loss")]
            for precision in precisions
        ]
        cells.append([*model, *(f"{right:.1%}, {loss:.3f}" for right, loss in means)])
    better = sum(row["bf16"]["accuracy"] > row["fp32"]["accuracy"] for row in rows)
    worse = sum(row["bf16"]["accuracy"] < row["fp32"]["accuracy"] for row in rows)
    return "\n".join(
        [
            table(["features", "model", *(f"{name}: accuracy, loss" for name in precisions)], cells),
            "",
            f"Means over three lists (n = {_sizes(rows[::3], 'n_val')} validation clips) and three seeds, without "
            f"training on validation clips. Of {len(rows)} pairs bf16 has more clips right in "
            f"{better} and fewer in {worse}.",
        ]
    )


def _sizes(rows: Sequence[dict[str, Any]], name: str) -> str:
    return " / ".join(str(row[name]) for row in rows[:3])


def amount() -> str:
    """Say what heads recognise that learned from so many clips a class."""
    result = _result("amount")
    rows = result["rows"]
    cells = []
    for most in dict.fromkeys(r["most"] for r in rows):
        mine = [r for r in rows if r["most"] == most]
        learned = statistics.mean(r["n_learned"] for r in mine)
        shown = [f"{most}" if most else "all", f"{learned:.0f}"]
        for variant in dict.fromkeys(r["variant"] for r in rows):
            by_list = [r["accuracy"] for r in mine if r["variant"] == variant]
            shown.append(f"{statistics.mean(by_list):.1%} ({min(by_list):.1%} to {max(by_list):.1%})")
        cells.append(shown)
    variants = [f"`{variant}`" for variant in dict.fromkeys(r["variant"] for r in rows)]
    return table(["clips per class at most", "clips in all, mean of the lists", *variants], cells)


def unknown() -> list[str]:
    result = _result("unknown")
    runs, scores = result["runs"], result["scores"]
    mean = {name: statistics.mean(r[name] for r in runs) for name in ("auroc", "detected", "false_alarms")}
    others = ", ".join(f"{name} {v:.2f}" for name, v in scores.items() if name != "highest probability")
    return [
        "",
        f"With {', '.join(result['left_out'])} left out of training ({result['n']} clips; {result['variant']} on "
        f"{result['backbone']}, split {result['split']}, {len(runs)} seeds): AUROC {mean['auroc']:.2f}, "
        f'{mean["detected"]:.0%} of them answered "unknown", and {mean["false_alarms"]:.0%} of the {result["n_test"]} '
        f"known test clips (asked for: {runs[0]['false_alarm_rate']:.0%}). Other scores, AUROC: {others}.",
    ]


#: Lines of the demo that are shown at once: commands, how many clips, how many are right, the first answer, the end.
_KEY_LINES = re.compile(r"\$ |.*\d done, |.*: accuracy |Done in ")


def demo() -> str:
    """The lines of the demo that matter most, then, folded, all that it prints."""
    log = (ROOT / "benchmarks/results/demo.txt").read_text().strip()
    shown = []
    for text in log.split("\n\n"):
        if "--variant mean" not in text:
            answers = [line for line in text.splitlines() if re.match(r" +[\d.]+%", line)]
            kept = [line for line in text.splitlines() if _KEY_LINES.match(line) or line in answers[:1]]
            shown.append("\n".join(line.removesuffix(" In ./demo:") for line in kept))
    return "\n".join(["```", "\n\n".join(shown), "```", "", *_folded("All that it prints", ["```", log, "```"])])


def _folded(title: str, lines: Iterable[str]) -> list[str]:
    """Return lines that a page shows only when asked to."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"]


def learn() -> str:
    """The end of what `learn` printed, on the first forty clips by name of five classes."""
    command, *lines = (ROOT / "benchmarks/results/learn.txt").read_text().splitlines()
    chosen = next(number for number, line in enumerate(lines) if line.startswith("chosen: "))
    return "\n".join(["```", command, "...", *lines[chosen:], "```"])


def beside() -> str:
    """How long a training takes alone and beside a busy process."""
    found = _result("beside")
    rows = []
    for way, alone in found["alone"].items():
        other = found["beside"][way]
        names = ", ".join(map(str, sorted({*other["threads"]})))
        rows.append([way, *(render_stage_one.span(v["seconds"], 1) for v in (alone, other)), names])
    head = ["training with", "alone, s", "beside one busy process, s", "threads then"]
    of = found["machine"]
    n = len(found["alone"]["one thread"]["seconds"]["all"])
    told = (
        f"{found['epochs']} epochs of {found['variant']} on features of {EMBEDDED}; median of {n} (lowest to highest), "
        f"all in turns; {of['cores']} cores of {of['processor']}."
    )
    return f"{table(head, rows)}\n\n{told}"


def backbone_cost() -> str:
    """What other backbones cost beside the default one."""
    found = _result("backbone_cost")
    rows = [
        [
            f"`{name}`",
            " x ".join(map(str, b["pixels"])),
            str(b["width"]),
            f"{b['parameters'] / 1e6:.0f}",
            f"{b['seconds_per_clip']['median']:.2f}",
            f"{b['over_default']['median']:.1f}",
        ]
        for name, b in found["backbones"].items()
    ]
    head = ["backbone", "pixels", "values a frame", "million weights", "s a clip", "times the default"]
    of = found["machine"]
    n = len(found["backbones"][EMBEDDED]["seconds_per_clip"]["all"])
    precision = listed(sorted({b["precision"] for b in found["backbones"].values()}))
    told = (
        f"From stored frames to embeddings, without `--compile`, in {precision}; {found['clips']} clips of 20 frames, "
        f"median of {n} repeats, all in turns; {of['cores']} cores of {of['processor']}."
    )
    return f"{table(head, rows)}\n\n{told}"


def audit() -> str:
    result = json.loads((ROOT / "benchmarks/results/audit.json").read_text())
    found = result["backbones"]
    lines = [
        "| | " + " | ".join(b["backbone"] for b in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    rows: dict[str, Any] = {
        "threshold (cosine)": lambda b: f"{b['threshold']:.3f}",
        "clips whose two halves are that alike": lambda b: f"{b['halves_found']:.0%}",
        "clips as near to one of another class": lambda b: f"{b['strangers_found']:.1%}",
        "near-duplicate pairs": lambda b: b["pairs"],
        "pairs across two classes": lambda b: b["pairs_across_labels"],
        "pairs within one filming series": lambda b: f"{b['same_column']:.0%}",
        "pairs of one group found": lambda b: f"{b['same_group']['found']} of {b['same_group']['pairs']}",
        "clusters; clips in clusters; largest cluster": (
            lambda b: f"{b['clusters']}; {b['clustered']}; {b['largest_cluster']}"
        ),
        "halves taken for clips: pairs found that are of one clip": lambda b: f"{b['halves']['precision']:.0%}",
    }
    lines += [f"| {name} | {' | '.join(str(cell(b)) for b in found)} |" for name, cell in rows.items()]
    lines += [
        "",
        "| split | test clips | share a group with training | have a near-duplicate in training |",
        "|---|---|---|---|",
    ]
    for split in found[0]["splits"]:
        folds = [fold for b in found for fold in b["splits"][split]]
        cells = (_range(f[name] for f in folds) for name in ("n_test", "share_group", "near_duplicate"))
        seeds = len(found[0]["splits"][split])
        lines.append(f"| {split}{f', {seeds} seeds' * (seeds > 1)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(values: Iterable[int]) -> str:
    counts = list(values)
    return between(min(counts), max(counts))


def recipe() -> str:
    """Single changes of the recipe, best first, each tested against it on the same clips."""
    result = _result("recipe")
    base = result["rows"][0]["val_accuracy"]
    rows = []
    for row in sorted(result["rows"], key=lambda r: -r["val_accuracy"]):
        if row is result["rows"][0]:
            rows.append(["**" + ", with ".join(["none", *result["base"]]) + "**", f"{base:.1%}", ""])
            continue
        gain = f"{100 * (row['val_accuracy'] - base):+z.1f}"
        rows.append([row["change"], f"{row['val_accuracy']:.1%} ({gain} points)", f"{row['p_holm']:.2g}"])
    n = ", ".join(str(k) for k in result["n_val"])
    model = f"{result['variant']}, {result['backbone']}"
    return table([f"change to `native` ({model})", f"validation accuracy (n = {n})", "adjusted p"], rows)


def features() -> str:
    """Other features under the same recipe, and what each is worth beside those of ``native``."""
    result = _result("features")
    start = {(r["variant"], r["features"]): r["val_accuracy"] for r in result["rows"] if _is_plain(r)}
    rows = [
        [
            r["variant"],
            r["features"],
            r["preset"],
            f"{r['frames']}" + (f", {r['drawn']} drawn" if r["drawn"] < r["frames"] else ""),
            f"{r['values_a_frame']:,}",
            f"{r['val_accuracy']:.1%}" + ("" if _is_plain(r) else f" ({_points(r, start)} points)"),
            f"{100 * r['spread_of_seeds']:.1f}",
        ]
        for r in result["rows"]
    ]
    n = ", ".join(str(n) for n in result["n_val"])
    head = ["variant", "features", "preset", "frames", "values per frame", f"validation accuracy (n = {n})"]
    return table([*head, f"points between its {result['seeds']} seeds"], rows)


def _is_plain(row: dict[str, Any]) -> bool:
    return row["preset"] == "native" and row["frames"] == 20 and "+" not in row["features"]


def _points(row: dict[str, Any], start: dict[tuple[str, str], float]) -> str:
    """Return how much more than the same variant has on the first of these backbones, as it is by default."""
    return f"{100 * (row['val_accuracy'] - start[row['variant'], row['features'].split('+')[0]]):+.1f}"


def sweep() -> str:
    """The search, and the test of what it found beside ``native``."""
    r = _result("sweep")
    best = r["finalists"][0]
    settings = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in best["settings"].items())
    rules = list(dict.fromkeys(row["split"] for row in r["test"]))
    tested = [
        [name, *(percent(row["accuracy"]) for row in r["test"] if row["recipe"] == name)]
        for name in ("native", "found")
    ]
    sizes = {row["split"]: row["n"] for row in r["test"]}
    lines = [
        f"`{r['variant']}` on {r['backbone']}: {r['tries']['finished']} trials finished and {r['tries']['given_up']} "
        f"given up early, in {r['seconds'] / 60:.0f} minutes on one core. Validation accuracy (n = {r['n_val']} over "
        f"the lists): `native` {r['start']:.1%}, the trial chosen in the end {best['val_accuracy']:.1%}; with three "
        f"other seeds {r['start_again']:.1%} and {best['val_accuracy_again']:.1%}.",
        "",
        f"Found: {settings}.",
        "",
        table(["recipe, test accuracy", *(f"{_split_name(rule)}, n = {sizes[rule]}" for rule in rules)], tested),
        "",
        *(
            f"- {_split_name(p['split'])}: {p['better']} {_against(p)} by {100 * p['difference']:.1f} points (95 % "
            f"{100 * p['ci95'][0]:+.1f} to {100 * p['ci95'][1]:+.1f}, exact p = {p['p']:.2g})."
            for p in r["test_pairs"]
        ),
    ]
    return "\n".join(lines)


def _against(pair: dict[str, Any]) -> str:
    other = "native" if pair["better"] == "found" else "found"
    told = pair["p"] < 0.05 and pair["ci95"][0] > 0
    return f"beats {other}" if told else f"is not distinguishable from {other}, above it"


def torture() -> str:
    from torture_table import table as torture_table

    return torture_table(json.loads((ROOT / "benchmarks/results/torture.json").read_text()))


def folds() -> str:
    """Put claims about equally good recipes, and how often intervals hold the accuracy, beside those of one test."""
    found = _result("folds")

    def span(name: str, cases: Sequence[dict[str, Any]]) -> str:
        return between(*(f"{100 * pick(c[name] for c in cases):.1f} %" for pick in (min, max)))

    head = ["two equally good recipes, on", "as `compare` computes it", "without the correction"]
    rows = []
    for of, own_splits in (("`kfold`", False), ("seeds with splits of their own", True)):
        cases = [case for case in found if case["own_splits"] is own_splits]
        pairs = (
            ("one is called better (5 % promised)", "claims"),
            ("the interval holds the accuracy (95 % promised)", "accuracy_held"),
        )
        rows += [[f"{of}: {what}", span(name, cases), span(f"{name}_as_one_test", cases)] for what, name in pairs]
    draws = between(*(f"{pick(c['draws'] for c in found)}" for pick in (min, max)))
    alone = f"On the first test side alone, one was called better in {span('claims_on_one_side', found)}."
    told = f"{len(found)} cases of {draws} data sets each, so that a share may be off by 2 to 5 points. {alone}"
    return "\n\n".join([table(head, rows), told])


def _few(rule: str, name: str = "few_classes") -> list[float]:
    return [row["accuracy"] for row in _result(name)["rows"] if row["split"].startswith(rule)]


def poses() -> str:
    """For the documentation: a row for each kind of head and features."""
    rows, found = [], _result("poses")["rows"]
    for row in found:
        low, high = (f"{100 * end:.1f}" for end in row["ci95"])
        told = [{"lists": "rooms mostly known", "rooms": "rooms never seen"}[row["split"]], row["variant"]]
        told += [row["features"], f"{row['accuracy']:.1%} ({low} to {high})"]
        if row["p"] is None:
            rows.append([*told, "", ""])
        else:
            ends = " to ".join(f"{100 * end:+.1f}" for end in row["difference_ci95"])
            rows.append([*told, f"{100 * row['difference']:+.1f} ({ends})", f"{row['p_holm']:.2g}"])
    names = ("test clips", "variant", "features", "accuracy, % (95 %)", "points above the default alone", "p, Holm")
    apart = [row for row in found if row["split"] == "rooms"]
    of = apart[0]["others"]
    told = "; ".join(f"{row['features']} {row['others']['accuracy']:.1%}" for row in apart)
    rest = (
        f"In the {of['rooms']} rooms that had no part in any choice (n = {of['n']}), `{apart[0]['variant']}`: {told}."
    )
    return "\n\n".join([table(list(names), rows), rest])


def few_classes() -> str:
    """In one sentence what the default backbone and `mean` reach with few classes, in rooms known and new."""
    found = _result("few_classes")
    known, new = (statistics.mean(_few(rule)) for rule in ("kfold", "leave-one"))
    classes, of_each = len(found["rows"][0]["classes"]), found["of_each"]
    return (
        f"With {classes} real exercises and {of_each} clips of each, {known:.0%} of the clips from mostly known rooms "
        f"are recognised, and {new:.0%} of those from rooms never seen. {_few_with_poses()}"
    )


def _few_with_poses() -> str:
    """The same of poses beside the default features."""
    found = _result("few_classes_poses")
    known, new = (statistics.mean(_few(rule, "few_classes_poses")) for rule in ("kfold", "leave-one"))
    assert found["of_each"] == _result("few_classes")["of_each"]
    return f"With [poses](docs/guide.md#poses) beside the usual features, it is {known:.0%} and {new:.0%}."


def _spread_with_poses() -> str:
    """Say how the draws spread with poses beside the default features, and what poses alone come to."""
    both = (
        f"{min(of):.0%} to {max(of):.0%}" for of in (_few(rule, "few_classes_poses") for rule in ("kfold", "leave"))
    )
    alone = (f"{statistics.mean(_few(rule, 'few_classes_pose_alone')):.0%}" for rule in ("kfold", "leave"))
    return "With poses beside them, the draws go from {} and from {}; by poses alone it is {} and {}.".format(
        *both, *alone
    )


def few_classes_all() -> str:
    """The same with its spread and how it was measured."""
    found = _result("few_classes")
    classes, draws = len(found["rows"][0]["classes"]), len({row["draw"] for row in found["rows"]})
    known, new = (f"{min(of):.0%} to {max(of):.0%}" for of in map(_few, ("kfold", "leave-one")))
    n, of_each = found["rows"][0]["n"], found["of_each"]
    return (
        f"The figures for {classes} exercises at the top are means over {draws} draws of {classes} of the classes that "
        f"have {of_each} clips, and of {of_each} clips of each (n = {n} a draw, each tested once; lowest to highest "
        f"draw {known}, and {new} in rooms never seen; an exercise named at random would be right in "
        f"{1 / classes:.0%}): {found['backbone']}, `{found['variant']}`, one seed (`benchmarks/few_classes.py`). "
        f"{_spread_with_poses()}"
    )


def watching() -> str:
    """Say how long `watch` takes for an answer, with and without using frames again."""
    found = _result("watch")
    others, shared = found["other_labels"], f"{found['seconds_shared']:.2f} s"
    spread = f"{found['ratio_least']:.2f} to {found['ratio_most']:.2f} in {found['repeats']} repeats"
    heads = f"{found['heads']} heads {found['variant']}"
    machine = f"{found['machine']['cores']} cores of an {found['machine']['processor'].replace('(R)', '')}"
    how = f"{found['backbone']}, {found['precision']}, {heads}, {machine}"
    agree = f"all but {others} had the same answer" if others else "each had the same answer both ways"
    return (
        f"`watch` answers a window of {found['samples']} frames in {shared} ({how}): windows share frames, which are "
        f"embedded once. With all of them embedded for each it takes {found['ratio']:.2f} times as long ({spread} of "
        f"{found['windows']} windows; {agree})."
    )


BLOCKS = {
    "few": few_classes,
    "poses": poses,
    "few-all": few_classes_all,
    "folds": folds,
    "watch": watching,
    "demo": demo,
    "learn": learn,
    "beside": beside,
    "backbone-cost": backbone_cost,
    "reproduced": reproduced,
    "reproduced-all": reproduced_all,
    "frame-variants": frame_variants,
    "yardstick": yardstick,
    "grid": grid,
    "rooms": rooms,
    "calibration": calibration,
    "together": together,
    "head-precision": head_precision,
    "amount": amount,
    "audit": audit,
    "recipe": recipe,
    "features": features,
    "sweep": sweep,
    "torture": torture,
    **render_stage_one.BLOCKS,
    **render_stage_two.BLOCKS,
}
PAGES = ("guide", "results", "evaluation", "performance", "reliability")
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in PAGES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    stale = [name for name in DOCUMENTS if not render(ROOT / name, check=check)]
    if check and stale:
        sys.exit(f"{', '.join(stale)} does not match benchmarks/results: run python benchmarks/render.py")


def render(path: Path, *, check: bool) -> bool:
    """Fill in the blocks of a document, or only say whether they are as they should be."""
    old = new = path.read_text()
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if pattern.search(new):
            try:
                text = block()
            except FileNotFoundError as error:
                print(f"{path.name}, {name}: not rendered, there is no {Path(error.filename).name} yet")
                continue
            new = pattern.sub(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", new)
    if not check:
        path.write_text(new)
    return old == new


if __name__ == "__main__":
    main()
