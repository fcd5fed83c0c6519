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


def exercises30() -> str:
    path = ROOT / "benchmarks/results/exercises30.json"
    result = json.loads(path.read_text())
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in result["runs"]:
        rows.setdefault((run["split"], run["backbone"], run["variant"]), []).append(run)
    lines = [
        "| split | features | variant | seeds | accuracy, mean ± sd | 95 %, seed 0 "
        "| top-5 | macro F1 | n | epochs | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (split, backbone, variant), runs in rows.items():
        accuracy = [r["accuracy"] for r in runs]
        spread = f" ± {statistics.stdev(accuracy):.1%}" if len(runs) > 1 else ""
        low, high = runs[0]["accuracy_ci95"]
        lines.append(
            f"| {split} | {backbone} | {variant} | {len(runs)} | {statistics.mean(accuracy):.1%}{spread} "
            f"| {low:.1%} to {high:.1%} "
            f"| {statistics.mean(r['top5_accuracy'] for r in runs):.1%} "
            f"| {statistics.mean(r['f1_macro'] for r in runs):.1%} | {runs[0]['n_test']} "
            f"| {runs[0]['epochs']} | {statistics.mean(r['seconds'] for r in runs):.0f} |"
        )
    return "\n".join([*lines, "", *verdicts(rows)])


def verdicts(rows: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[str]:
    """Say of every variant whether its mean accuracy is above that of ``mean``: on its features, or for heads on frames
    on the features where ``mean`` is worst.
    """
    out = []
    for (split, backbone, variant), runs in rows.items():
        if variant == "mean":
            continue
        rivals = [b for s, b, v in rows if s == split and v == "mean" and backbone in (b, "pixels64")]
        if not rivals:
            continue
        if backbone == "pixels64" and all(_accuracy(runs) < _accuracy(rows[split, b, "mean"]) for b in rivals):
            out.append(f"- `{variant}`, not converged, is far below `mean` on any backbone's features, split {split}.")
            continue
        rival = min(rivals, key=lambda b: _accuracy(rows[split, b, "mean"]))
        gain = _accuracy(runs) - _accuracy(rows[split, rival, "mean"])
        words = "is above" if gain > 0 else "does **not** beat"
        seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
        out.append(f"- `{variant}` {words} `mean` on {rival}, split {split}: {100 * gain:+.1f} points, {seeds}.")
    return out


def _accuracy(runs: list[dict[str, Any]]) -> float:
    return statistics.mean(r["accuracy"] for r in runs)


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
    "exercises30": exercises30,
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
