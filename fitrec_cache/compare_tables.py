"""A comparison as a Markdown page or a CSV table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitrec_cache.common.files import make_folder, remove_unfinished, write_atomic, write_csv
from fitrec_cache.wording import plural

if TYPE_CHECKING:
    from fitrec_cache.compare import CompareReport

#: The beginning of a comparison file, by the file's ending.
MARKS = {
    ".md": "| model | split | validation |",
    ".csv": "kind,a,b,split,n,seeds,validation,value,sd,low,high,only_a,only_b,p,p_holm,text",
}


def write_tables(report: CompareReport, path: Path) -> None:
    """Write a comparison to ``.md`` or ``.csv``.

    Raises:
        StoreError: If the file cannot be written.
    """
    make_folder(path.parent)
    remove_unfinished(path.parent)
    if path.suffix.lower() == ".md":
        write_atomic(path, as_markdown(report).encode())
    else:
        write_csv(path, (*MARKS[".csv"].split(","), "folder"), _rows(report))


def as_markdown(report: CompareReport) -> str:
    """Return the models as a table, the pairs as a table and as sentences, and the notes."""
    lines = [
        f"{MARKS['.md']} accuracy | sd over seeds | 95 % | n | groups | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for m in report.models:
        sd = "one seed" if m.sd is None else f"{100 * m.sd:.1f}"
        span = f"{100 * m.ci95[0]:.1f} to {100 * m.ci95[1]:.1f}"
        groups = "unknown" if m.n_groups is None else str(m.n_groups)
        accuracies = [f"{100 * m.val_accuracy:.1f}{' (best)' * m.chosen}", f"{100 * m.accuracy:.1f}"]
        cells = [m.name, m.split, *accuracies, sd, span, str(m.n), groups, str(len(m.seeds))]
        lines.append(_row(cells))
    if report.pairs:
        lines += [
            "",
            "| better | other | points | 95 % | only the better right | only the other right | p | p, Holm |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for p in report.pairs:
            span = f"{100 * p.ci95[0]:.1f} to {100 * p.ci95[1]:.1f}"
            counts = [str(p.only_a), str(p.only_b), f"{p.p:.2g}", f"{p.p_holm:.2g}"]
            lines.append(_row([p.a, p.b, f"{100 * p.difference:.1f}", span, *counts]))
        lines += ["", *(f"- {p.text}" for p in report.pairs)]
        lines.append(f"- {tried(report)}")
    lines += [f"- note: {n}" for n in report.notes]
    return "\n".join([*lines, ""])


def tried(report: CompareReport) -> str:
    """Return how many pairs were compared, in words."""
    kinds = " and ".join(sorted({p.by for p in report.pairs} - {"clip"}))
    seeds = any(len(p.seeds) > 1 for p in report.pairs)
    test = f"an exact sign-flip test{f' by {kinds}' * bool(kinds)}{' over all seeds' * seeds}"
    if not kinds and not seeds:  # otherwise p does not follow from the counts of clips that only one has right
        test = "exact McNemar"
    pairs = plural(report.tried, "pair")
    return f"{pairs} compared; p-values by {test}, adjusted for the number on the same sides (Holm)"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _rows(report: CompareReport) -> Iterator[dict[str, Any]]:
    for m in report.models:
        low, high = m.ci95
        same = {"n": m.n, "seeds": len(m.seeds), "low": low, "high": high}
        figures = {"validation": m.val_accuracy, "value": m.accuracy, "sd": m.sd}
        yield {"kind": "model", "a": m.name, "split": m.split, "folder": m.folder, **figures, **same}
    for p in report.pairs:
        low, high = p.ci95
        same = {"n": p.n, "seeds": len(p.seeds), "low": low, "high": high}
        counts = {"only_a": p.only_a, "only_b": p.only_b, "p": p.p, "p_holm": p.p_holm, "text": p.text}
        yield {"kind": "pair", "a": p.a, "b": p.b, "split": p.split, "value": p.difference, **same, **counts}
