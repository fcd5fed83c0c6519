"""Write the tables of README and docs from committed JSON, between their markers.

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

ROOT = Path(__file__).resolve().parents[1]


def exercises30() -> str:
    path = ROOT / "benchmarks/results/exercises30.json"
    result = json.loads(path.read_text())
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in result["runs"]:
        rows.setdefault((run["split"], run["backbone"], run["variant"]), []).append(run)
    lines = [
        "| split | features | variant | accuracy, mean ± sd | 95 %, seed 0 | top-5 | macro F1 | n | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (split, backbone, variant), runs in rows.items():
        accuracy = [r["accuracy"] for r in runs]
        spread = f" ± {statistics.stdev(accuracy):.1%}" if len(runs) > 1 else ""
        low, high = runs[0]["accuracy_ci95"]
        lines.append(
            f"| {split} | {backbone} | {variant} | {statistics.mean(accuracy):.1%}{spread} | {low:.1%} to {high:.1%} "
            f"| {statistics.mean(r['top5_accuracy'] for r in runs):.1%} "
            f"| {statistics.mean(r['f1_macro'] for r in runs):.1%} | {runs[0]['n_test']} "
            f"| {statistics.mean(r['seconds'] for r in runs):.0f} |"
        )
    return "\n".join([*lines, "", *verdicts(rows)])


def verdicts(rows: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[str]:
    """Say of every variant with features whether its mean accuracy is above that of ``mean`` on the same features."""
    out = []
    for (split, backbone, variant), runs in rows.items():
        yardstick = rows.get((split, backbone, "mean"))
        if variant == "mean" or yardstick is None:
            continue
        gain = statistics.mean(r["accuracy"] for r in runs) - statistics.mean(r["accuracy"] for r in yardstick)
        words = "beats" if gain > 0 else "does not beat"
        out.append(f"- `{variant}` {words} `mean` on {backbone}, split {split}: {gain:+.1%} over {len(runs)} seeds.")
    return out


def demo() -> str:
    text = (ROOT / "benchmarks/results/demo.txt").read_text().strip()
    return f"```\n{text}\n```"


def torture() -> str:
    from torture_table import table

    return table(json.loads((ROOT / "benchmarks/results/torture.json").read_text()))


BLOCKS = {"demo": demo, "exercises30": exercises30, "torture": torture}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = path.read_text()
        new = rendered(old)
        if old != new:
            stale.append(path.name)
            if not check:
                path.write_text(new)
    if check and stale:
        sys.exit(f"{', '.join(stale)} does not match benchmarks/results: run python benchmarks/render.py")


def rendered(text: str) -> str:
    """Return a page with its blocks written anew."""
    for name, render in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if pattern.search(text):
            block = render()
            text = pattern.sub(lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text)
    return text


if __name__ == "__main__":
    main()
