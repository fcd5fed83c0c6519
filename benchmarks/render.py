"""Write the tables of the README and the documentation from committed JSON, between their markers.

python benchmarks/render.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import render_stage_one
import render_stage_two

ROOT = Path(__file__).resolve().parents[1]


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return found


def frame_variants() -> str:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in _result("frame_variants")["runs"]:
        rows.setdefault((run["variant"], run["split"]), []).append(run)
    lines = [
        "| variant | split | seeds | epochs | accuracy, mean ± sd | macro F1 | n | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (variant, split), runs in rows.items():
        accuracy = [r["accuracy"] for r in runs]
        lines.append(
            f"| {variant} | {split} | {len(runs)} | {runs[0]['epochs']} | {statistics.mean(accuracy):.1%} ± "
            f"{statistics.stdev(accuracy):.1%} | {statistics.mean(r['f1_macro'] for r in runs):.1%} "
            f"| {runs[0]['n_test']} | {statistics.mean(r['seconds'] for r in runs):.0f} |"
        )
    return "\n".join(lines)


def reproduced() -> str:
    result = _result("yardstick")
    lines = [
        "| split | features | variant | seeds | accuracy, mean ± sd | top-5 | macro F1 | n | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["reproduced"]["table2"]:
        f = row["figures"]
        lines.append(
            f"| {_split_name(row['split'])} | {row['backbone']} | {row['variant']} | {row['seeds']} "
            f"| {f['accuracy']:.1%} ± {f['accuracy_sd']:.1%} | {f['top5_accuracy']:.1%} | {f['f1_macro']:.1%} "
            f"| {row['n']} | {row['seconds']:.0f} |"
        )
    for row in result["folds"]:
        (one,) = row["pooled"]
        lines.append(
            f"| {row['split']}, {one['folds']} folds | {row['backbone']} | {row['variant']} | 1 "
            f"| {one['accuracy']:.1%} | {one['top5_accuracy']:.1%} | {one['f1_macro']:.1%} | {one['n']} | |"
        )
    return "\n".join(lines)


def _split_name(rule: str) -> str:
    number = re.search(r"list0(\d)", rule)
    return f"list {number[1]}" if number else rule


def yardstick() -> str:
    result = _result("yardstick")
    names = list(dict.fromkeys(row["split"] for row in result["rows"]))
    lines = [
        "| features | model | validation, mean of the lists | test | test of the seeds' mean |",
        "|---|---|---|---|---|",
    ]
    for backbone, variant in dict.fromkeys((r["backbone"], r["variant"]) for r in result["rows"]):
        rows = [r for r in result["rows"] if (r["backbone"], r["variant"]) == (backbone, variant)]
        test = " / ".join(f"{r['test_accuracy']:.1%}" for r in rows)
        together = " / ".join(f"{r['together_accuracy']:.1%}" for r in rows if "together_accuracy" in r)
        validation = statistics.mean(r["val_accuracy"] for r in rows)
        lines.append(f"| {backbone} | {variant} | {validation:.1%} | {test} | {together} |")
    first = [r for r in result["rows"] if r["variant"] == result["rows"][0]["variant"]][: len(names)]
    sizes = (" / ".join(str(r[k]) for r in first) for k in ("n_val", "n_test"))
    lines += ["", "Validation n = {}; test n = {}.".format(*sizes), ""]
    for pair in result["pairs"]:
        low, high = pair["ci95"]
        lines.append(
            f"- `{pair['variant']}` on {pair['backbone']}, mean of its seeds, less logistic regression, test clips of "
            f"the three lists: {100 * pair['difference']:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f}, "
            f"n = {pair['n']}, exact McNemar p = {pair['p']:.2g})."
        )
    return "\n".join(lines)


def calibration() -> str:
    """Say how far stated probabilities are from the truth, and what the threshold for "unknown" turns away wrongly."""
    lines = [
        "| features | model | calibration error, before | after | known test clips turned away |",
        "|---|---|---|---|---|",
    ]
    rows = [r for r in _result("yardstick")["rows"] if "ece" in r]
    for backbone, variant in dict.fromkeys((r["backbone"], r["variant"]) for r in rows):
        mine = [r for r in rows if (r["backbone"], r["variant"]) == (backbone, variant)]
        cells = (statistics.mean(r[name] for r in mine) for name in ("ece_uncalibrated", "ece", "false_alarms"))
        lines.append(f"| {backbone} | {variant} | {' | '.join(f'{cell:.1%}' for cell in cells)} |")
    return "\n".join(lines + unknown())


def unknown() -> list[str]:
    result = _result("unknown")
    return [
        "",
        f"With {', '.join(result['left_out'])} left out of training ({result['n']} clips; {result['variant']} on "
        f"{result['backbone']}, split {result['split']}, {len(result['runs'])} seeds): AUROC "
        f"{statistics.mean(r['auroc'] for r in result['runs']):.2f}, "
        f'{statistics.mean(r["detected"] for r in result["runs"]):.0%} of them answered "unknown", and '
        f"{statistics.mean(r['false_alarms'] for r in result['runs']):.0%} of the {result['n_test']} known test clips "
        f"(asked for: {result['runs'][0]['false_alarm_rate']:.0%}).",
    ]


def demo() -> str:
    text = (ROOT / "benchmarks/results/demo.txt").read_text().strip()
    return f"```\n{text}\n```"


def audit() -> str:
    result = json.loads((ROOT / "benchmarks/results/audit.json").read_text())
    found = result["backbones"]
    lines = [
        "| | " + " | ".join(b["backbone"] for b in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    rows: dict[str, Any] = {
        "threshold (cosine)": lambda b: f"{b['threshold']:.3f}",
        "clips that find their own other half at it": lambda b: f"{b['halves_found']:.0%}",
        "clips that find one of another class": lambda b: f"{b['strangers_found']:.1%}",
        "near-duplicate pairs": lambda b: b["pairs"],
        "of them of two classes": lambda b: b["pairs_across_labels"],
        "of them of one filming series": lambda b: f"{b['same_column']:.0%}",
        "pairs of one group found": lambda b: f"{b['same_group']['found']} of {b['same_group']['pairs']}",
        "clusters, with clips in them, largest": lambda b: f"{b['clusters']}, {b['clustered']}, {b['largest_cluster']}",
        "halves as clips of their own: pairs found that are of one clip": lambda b: f"{b['halves']['precision']:.0%}",
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


def _range(values: Any) -> str:
    low, *_, high = sorted(values)
    return str(low) if low == high else f"{low} to {high}"


def recipe() -> str:
    result = json.loads((ROOT / "benchmarks/results/recipe.json").read_text())
    n = ", ".join(str(k) for k in result["n_val"])
    lines = [
        f"| change to `native` ({result['variant']}, {result['backbone']}) | validation accuracy (n = {n}) |",
        "|---|---|",
    ]
    base = result["rows"][0]["val_accuracy"]
    start = ", with " + ", ".join(result["base"]) if result["base"] else ""
    for row in sorted(result["rows"], key=lambda r: -r["val_accuracy"]):
        gain = "" if row["change"] == "native" else f" ({100 * (row['val_accuracy'] - base):+.1f} points)"
        name = f"**none**{start}" if row["change"] == "native" else row["change"]
        lines.append(f"| {name} | {row['val_accuracy']:.1%}{gain} |")
    return "\n".join(lines)


def torture() -> str:
    from torture_table import table

    return table(json.loads((ROOT / "benchmarks/results/torture.json").read_text()))


BLOCKS = {
    "demo": demo,
    "reproduced": reproduced,
    "frame-variants": frame_variants,
    "yardstick": yardstick,
    "calibration": calibration,
    "audit": audit,
    "recipe": recipe,
    "torture": torture,
    **render_stage_one.BLOCKS,
    **render_stage_two.BLOCKS,
}
DOCUMENTS = ("README.md", "docs/evaluation.md", "docs/performance.md", "docs/reliability.md")


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
