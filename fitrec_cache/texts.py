"""The text that each command prints: its report as lines for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitrec_cache.compare_tables import tried
from fitrec_cache.dataset.clips import plain_text
from fitrec_cache.live.timeline import clock
from fitrec_cache.settings.poses import POSES
from fitrec_cache.wording import MANY_CLASSES, bounds, command, count, lasting, listed, options, plural, roughly, size

if TYPE_CHECKING:
    from fitrec_cache.audit import AuditReport
    from fitrec_cache.check import CheckReport
    from fitrec_cache.compare import CompareReport, ModelFigures
    from fitrec_cache.doctor import DoctorReport
    from fitrec_cache.evaluation.metrics import Metrics
    from fitrec_cache.export import ExportReport
    from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip
    from fitrec_cache.info import InfoReport
    from fitrec_cache.learn import LearnReport
    from fitrec_cache.live.timeline import Segment
    from fitrec_cache.pack import PackReport
    from fitrec_cache.params import ParamsReport
    from fitrec_cache.predict import Prediction
    from fitrec_cache.report import PageReport
    from fitrec_cache.reproduce import ReproduceReport
    from fitrec_cache.runs.results import TrainReport
    from fitrec_cache.sweep import SweepReport
    from fitrec_cache.watch import WatchReport

#: A video at least this many times as long as the median training clip probably shows several exercises.
_LONG = 4

#: The greatest number of confused pairs of classes shown for labelled videos.
_MOST_CONFUSED = 5

#: The greatest number of confused pairs of classes shown after training, in one line.
_MOST_MISTAKEN = 3

#: Up to this many clips that failed for the same reason have a line each; if there are more, only the first ones.
_MOST_ALIKE, _FIRST = 20, 5


def _stages(stages: Mapping[str, float], bottleneck: str = "") -> str:
    parts = _seconds(stages)
    bottleneck = bottleneck or max(stages, key=lambda k: stages[k], default="")
    return f"time went to: {parts}. Bottleneck: {bottleneck}" if parts else ""


def _others(used: float | None, advice: str = "") -> str:
    return (
        "" if used is None else f"other programs used {used:.1f} cores at the same time, which slowed this down{advice}"
    )


def _seconds(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {s:.1f} s" for name, s in spent.items() if s >= 0.05)


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def _lines(*groups: Any) -> str:
    return "\n".join(line for group in groups for line in ([group] if isinstance(group, str) else group) if line)


def extract_text(report: ExtractReport, cache: Path) -> str:
    """Return what an extraction did and how long each stage took; notes were printed before."""
    reasons = _reasons(report.failed)
    dims = ", ".join(f"{name} ({dim})" for name, dim in report.backbones.items())
    return _lines(
        reasons,
        f"{plural(report.clips, 'clip')}: {count(report.done)} done, {count(report.reused)} reused, "
        f"{count(len(report.failed))} failed, "
        f"in {report.seconds:.1f} s",
        f"features of {dims} in {cache}",
        _stages(report.stages, report.bottleneck),
        _others(report.others),
        f"work of threads and decoders: {beside}" if (beside := _seconds(report.beside)) else "",
    )


def _reasons(failed: Sequence[FailedClip]) -> list[str]:
    """Return why clips failed, one line each; if many have the same reason, the first ones and the number of others."""
    from fitrec_cache.extraction.extract_report import by_reason

    lines = []
    for reason, names in by_reason(failed).items():
        shown = names if len(names) <= _MOST_ALIKE else names[:_FIRST]
        lines += [f"failed: {name}: {reason}" for name in shown]
        lines += [f"failed: {len(names) - len(shown)} more: {reason}"] if len(shown) < len(names) else []
    return lines


def train_text(report: TrainReport) -> str:
    """Return the metrics of trained heads, and of all seeds or folds together; notes were printed before."""
    lines = []
    for r in report.runs:
        fold = f", fold {r.fold}" if r.fold else ""
        lines.append(
            f"{r.variant} on {r.backbone}, split {plain_text(r.split)}{fold}, seed {r.seed}: {_figures(r.metrics)}; "
            f"{plural(r.epochs, 'epoch')}{f', epoch {r.best_epoch} kept' * (r.best_epoch < r.epochs)}, "
            f"{r.seconds:.1f} s -> {r.out}"
        )
        if "auroc" in r.unknown:
            lines.append(
                f"  unknown classes: {r.unknown['detected']:.1%} of {r.unknown['n']} clips answered 'unknown', "
                f"{r.unknown['false_alarms']:.1%} of known test clips too; AUROC {r.unknown['auroc']:.3f}"
            )
    for p in report.pooled:
        lines.append(
            f"all {p['folds']} folds, seed {p['seed']}: accuracy {p['accuracy']:.1%} of {p['n']} clips (95 % "
            f"interval {bounds(p['accuracy_ci95'])}), macro F1 {p['f1_macro']:.1%}"
        )
    if len(report.accuracies) > 1:
        figures = report.to_dict()
        lines.append(
            f"mean of {len(report.accuracies)} seeds: accuracy {figures['accuracy_mean']:.1%}, "
            f"standard deviation {figures['accuracy_std']:.1%}"
        )
    if report.ensemble:
        e = report.ensemble
        as_predict = "" if report.final else ", as predict answers"
        lines.append(
            f"all seeds together{as_predict}: accuracy {e['accuracy']:.1%} of {e['n']} clips (95 % interval "
            f"{bounds(e['accuracy_ci95'])}), macro F1 {e['f1_macro']:.1%}, probabilities off by {e['ece']:.1%} "
            f"(calibration error; by chance alone some {e['ece_expected']:.1%}), {e['false_alarms']:.1%} of the test "
            "clips answered 'unknown'"
        )
        if "detected" in e:
            lines.append(f"  unknown classes: {e['detected']:.1%} of {e['n_unknown']} clips; AUROC {e['auroc']:.3f}")
    lines += _mistakes(report)
    advice = ": beside them OMP_NUM_THREADS=1 is faster (docs/performance.md)" * (report.threads > 1)
    return _lines(lines, _stages(report.stages), _others(report.others, advice))


def learn_text(report: LearnReport) -> str:
    """Return which model was chosen, its metrics, and how to use it; notes were printed before."""
    best, answers, first = report.chosen, report.answers, report.trained.runs[0]
    seeds = len(report.trained.runs)
    together = f" by {seeds} seeds together, as predict answers; one alone {best.accuracy:.1%} on average"
    told = f"of {plural(first.n_test, 'clip')} (95 % interval {bounds(answers['accuracy_ci95'])}"
    leaks = (
        "; probably too high: some test clips share a group with training or look like clips there (see the notes)"
        * report.leaks
    )
    apart = "; clips of one person or recording may be on both sides, as not all groups are known"
    leaks = leaks or apart * (not report.groups_known)
    left_out = set(report.left_out)
    return _lines(
        _reasons([f for f in report.extracted.failed if f.clip_id not in left_out]),
        f"left out: {plural(len(left_out), 'clip')} that cannot be used (see the notes)" if left_out else "",
        _choice(best, [m for m in report.models if m is not best], first.n_val),
        f"on test clips, which had no part in that: accuracy {answers['accuracy']:.1%} {told}; guessing "
        f"{first.metrics.guessing:.1%}){together * (seeds > 1)}{leaks}",
        "that is not shown to be better than guessing: do not rely on it; film more clips, of more people and in more "
        "rooms"
        if answers["accuracy_ci95"][0] <= first.metrics.guessing
        else "",
        f"that interval is wide: `{report.in_folds}` tests all {report.n_learned} clips, each by a head that did not "
        "learn from it (some of them had a part in choosing the model)"
        if report.in_folds
        else "",
        f"its probabilities were off by {answers['ece']:.1%} there (calibration error; by chance alone some "
        f"{answers['ece_expected']:.1%})",
        _mistakes(report.trained),
        f"then it was trained again on {plural(report.n_learned, 'clip')}, these included; done in "
        f"{lasting(report.seconds)}",
        f"report: {report.page}",
        f"use it: {command('predict', *options(run=report.out), 'VIDEO')}",
        f"        {command('watch', *options(run=report.out), 'LONG-VIDEO')}",
        f"before this call --run {report.out} meant {report.earlier}, which can still be given"
        if report.earlier
        else "",
        "worth a try: the same command with --poses, which adds how people hold their bodies (downloads 9 MB once)"
        * all("-native-" in at and name not in POSES for name, at in report.extracted.features.items()),
    )


def _choice(best: ModelFigures, others: Sequence[ModelFigures], n: int) -> str:
    """Return which model was chosen on n validation clips, and whether others are within chance of it."""
    than = f"; others: {', '.join(f'{m.name} {m.val_accuracy:.1%}' for m in others)}" if others else ""
    close = any(m.val_accuracy >= best.val_ci95[0] for m in others)
    return (
        f"chosen: {best.name}, on {plural(n, 'validation clip')} (accuracy, mean of its seeds: "
        f"{best.val_accuracy:.1%}{than}{'; so close that other clips might have led to another choice' * close})"
    )


def _mistakes(report: TrainReport) -> list[str]:
    """Return the classes that were confused most often, and those never recognised, over all tests."""
    answered = report.answered()
    each = f", by {len(report.runs)} seeds one by one" if report.ensemble else ""
    tested: Counter[str] = Counter()
    for (label, _), n in answered.items():
        tested[label] += n
    wrong = Counter({pair: n for pair, n in answered.items() if pair[0] != pair[1]})
    most = wrong.most_common(_MOST_MISTAKEN)
    pairs = [f"{label} taken for {other} ({n} of {tested[label]})" for (label, other), n in most]
    never = [f"{label} (0 of {tested[label]})" for label in sorted(tested) if not answered[label, label]]
    return [
        *([f"most often mistaken{each}: {', '.join(pairs)}"] if pairs else []),
        *([f"never right{each}: {listed(never, most=_MOST_CONFUSED)}"] if never else []),
    ]


def _figures(m: Metrics) -> str:
    interval = f"95 % interval {bounds(m.accuracy_ci95)}; guessing {m.guessing:.1%}"
    figures = [f"accuracy {m.accuracy:.1%} of {m.n} clips ({interval})"]
    if len(m.per_class) >= MANY_CLASSES:
        figures.append(f"top-5 {m.top5_accuracy:.1%}")
    return ", ".join([*figures, f"macro F1 {m.f1_macro:.1%}"])


#: Printed once if there is no threshold for "unknown", as with few clips.
_NEVER_UNKNOWN = (
    'this model never answers "unknown": it names one of its classes whatever a video shows (--unknown-below P makes '
    'it answer "unknown" where no class reaches the probability P)'
)


def predict_text(p: Prediction, *, brief: bool = False) -> str:
    """Return the most probable classes of a video; ``brief``: only the first one, in one line."""
    together = f" (mean of {p.heads} seeds)" if p.heads > 1 else ""
    known = " (the head was trained on this video: this says nothing about new videos)"
    together += known * p.trained_on
    lengths = p.median_lengths or 0
    if brief and p.top:
        label, probability = p.top[0]
        answer = f"unknown (nearest {label} {probability:.1%})" if p.unknown else f"{label} {probability:.1%}"
        together = f": {answer}{', wrong' * (p.right is False)}{together}"
    return _lines(
        f"{plain_text(p.path)}: {p.reason}" if p.reason else f"{plain_text(p.path)}{together}",
        [f"  {warning}" for warning in p.warnings],
        [f"  {lengths:.0f} times as long as the clips trained on: `watch` answers a file piece by piece"]
        * (lengths >= _LONG),
        ["  unknown: no class is probable enough; the nearest are"] * (p.unknown and not brief),
        [f"  {probability:6.1%}  {label}" for label, probability in p.top if not brief],
    )


def labelled_text(found: list[Prediction]) -> str:
    """Return how many answers are right, for videos that the head was not trained on, and what was confused."""
    from fitrec_cache.predict import figures, judged, units

    tested = judged(found)
    named = [p for p in tested if not p.unknown]
    seen = sum(p.right is not None for p in found) - len(tested)
    strange = sorted({p.label for p in found if p.top and p.right is None})
    right = sum(bool(p.right) for p in tested)
    rates = ""
    if m := figures(tested):
        apart = len(set(units(tested)))
        supposed = f" if {'clips' if apart == m.n else f'the {apart} groups'} are independent" * (apart > 1)
        interval = f"95 % interval {bounds(m.accuracy_ci95)}{supposed}"
        rates = f": {m.accuracy:.1%} ({interval}; guessing {m.guessing:.1%}), macro F1 {m.f1_macro:.1%}"
    known = sum(bool(p.right) for p in found if p.trained_on)
    taken = Counter((p.label, p.top[0][0]) for p in tested if not p.right)
    return _lines(
        f"right: {right} of {len(tested)} labelled videos{rates}",
        [f"  {label} taken for {other}: {n}" for (label, other), n in taken.most_common(_MOST_CONFUSED)],
        f"  {len(tested) - len(named)} of these were answered unknown, and the nearest class counted; of the other "
        f"{len(named)}, {sum(bool(p.right) for p in named)} are right"
        if len(named) < len(tested)
        else "",
        "  left out, as they are training videos, or named like them where the run does not know their bytes: "
        f"{seen}, {known} of them right"
        if seen
        else "",
        f"  left out, of classes that the head does not know: {listed(strange)}" if strange else "",
    )


def predict_files_text(found: list[Prediction], picture: Path | None, table: Path | None) -> str:
    """Return the limits of the answers, and the files to which they were written."""
    from fitrec_cache.predict import MOST_PICTURED

    answered = sum(bool(p.top) for p in found)
    some = f" (the first {MOST_PICTURED} of {answered})" * (answered > MOST_PICTURED)
    return _lines(
        _NEVER_UNKNOWN if answered and not all(p.may_be_unknown for p in found) else "",
        f"picture: {picture}{some}" if picture and answered else "",
        f"table: {table}" if table else "",
    )


def segment_text(segment: Segment) -> str:
    """Return a segment in words: from when to when, and what was recognised."""
    return f"{clock(segment.start)} to {clock(segment.end)}  {segment.text}"


def watch_text(report: WatchReport) -> str:
    """Return the last segment, and how the video was examined."""
    windows = f"{plural(report.windows, 'window')} of {report.seconds:.3g} s, one every {report.every:.3g} s"
    return _lines(
        [segment_text(s) for s in report.segments[-1:]],
        windows + (f"; {report.skipped} skipped, as they came faster than answers" if report.skipped else ""),
        f"an answer took {report.answer_seconds:.2g} s: about as much is needed between windows (--every) to skip none"
        if report.skipped and report.answer_seconds > report.every
        else "",
        watch_notes(report),
        _NEVER_UNKNOWN if report.segments and not report.may_be_unknown else "",
        [f"written: {path}" for path in report.files],
    )


def watch_notes(report: WatchReport) -> str:
    """Return which parts were not examined, and why."""
    return _lines(
        f"stopped at {clock(report.segments[-1].end)}: what comes after it was not examined"
        if report.stopped and report.segments
        else "",
        f"{report.every - report.seconds:.3g} s between consecutive windows were not examined"
        if report.every > report.seconds and report.windows > 1
        else "",
        f"the last {report.rest:.1f} s are in no window: not answered" if report.rest >= 0.05 else "",
        f"{report.source} grew meanwhile: repeat this when it is whole" if report.grew else "",
        f"opened again: {plural(report.reconnected, 'time')}; what came meanwhile was not examined"
        if report.reconnected
        else "",
        f"{plural(report.torn, 'window')} at gaps or where the picture changes: not answered" if report.torn else "",
        f"{report.source} ends {report.missing:.1f} s before its header says" if report.missing >= 1 else "",
        f"damaged or misplaced frames and packets, left out: {report.damaged}" if report.damaged else "",
    )


def info_text(report: InfoReport) -> str:
    """Return the description of a cache."""
    clips, classes = plural(report.clips, "clip"), plural(len(report.classes), "class", "classes")
    gone = f", {report.taken_out} removed" * bool(report.taken_out)
    lines = [
        f"{report.cache}: format {report.format_version}, {clips} in {classes}, {plural(report.groups, 'group')}, "
        f"{report.failed} failed{gone}"
    ]
    for frames in report.frames:
        s = frames["settings"]
        lines.append(
            f"frames    {frames['folder']}: {plural(frames['clips'], 'clip')}, {s['samples']} frames each, short side "
            f"at most {s['short_side']} px, {size(frames['bytes'])} in {plural(frames['parts'], 'part')}"
        )
    for features in report.features:
        s = features["settings"]
        lines.append(
            f"features  {features['folder']}: {plural(features['clips'], 'clip')}, {s['backbone']}, preset "
            f"{s['preprocessing']['preset']}, {s['precision']}, {s['samples']} frames each, "
            f"{size(features['bytes'])} in {plural(features['parts'], 'part')}"
        )
    lines += _notes(report.notes)
    for e in report.history:
        what = f"{plural(e.done, 'clip')} in {e.seconds:.0f} s, mostly {e.bottleneck}"
        lines.append(f"extracted {e.ended}: {what}: {'; '.join(e.backbones)} on {e.device}")
    lines += [f"  {label}: {n}" for label, n in report.classes.items()] if not report.clip_list else []
    for clip in report.clip_list:
        ledger = clip["ledger"]
        what = clip["problem"].replace("taken out", "removed") or ", ".join(
            f"{k} {v}" for k, v in ledger.items() if v not in (0, False, [])
        )
        lines.append(f"{clip['clip_id']}: {what}")
    return _lines(lines)


#: Counts of each row of the table of parameters, and their titles.
_COUNTS = {
    "paper_total": "total",
    "total": "ours",
    "paper_trainable": "trainable",
    "trainable": "ours",
    "torch_total": "total",
    "torch_trainable": "trainable",
    "head_trainable": "head only",
}


def params_text(report: ParamsReport) -> str:
    """Return a fixed-width table, with the notes below it."""
    groups = f"{'':<28}{'Table I / Keras convention':^48}{'PyTorch convention':^24}{'trained here':>12}"
    lines = [groups, f"{'variant':<28}" + "".join(f"{title:>12}" for title in _COUNTS.values())]
    for row in report.variants:
        counts = ("-" if (count := getattr(row, name)) is None else f"{count:,}" for name in _COUNTS)
        lines.append(f"{row.name:<28}" + "".join(f"{count:>12}" for count in counts))
    legend = "the backbone is frozen, its pooled features go in, attention is the variant's own (Eq. 9 by default)."
    return "\n".join([*lines, "", f"head only: {legend}", *(f"{row.name}: {row.note}" for row in report.variants)])


def audit_text(report: AuditReport, cache: Path, manifest: Path | None) -> str:
    """Return whether a split leaks, which near-duplicates there are, and how to use the manifest if one was written."""
    trust = "as chosen" if report.threshold_chosen else "taken from the data"
    if report.halves_found is not None:
        trust += f"; {report.halves_found:.0%} of the clips match their own other half at this threshold"
    if report.strangers_found is not None:
        trust += f", {report.strangers_found:.1%} match a clip of another class"
    groups, lines = report.same_group, _notes(report.notes)
    given = report.threshold_chosen
    least = report.threshold if given else math.ceil(1e6 * report.threshold) / 1e6  # rounded up: adds no pairs
    lines += [
        f"{plural(report.clips, 'clip')} by {report.backbone}: {plural(report.pairs, 'near-duplicate pair')}, "
        f"{count(report.pairs_across_labels)} of them between two classes",
        f"near-duplicate: similarity {least:.6f} or more, {trust}",
    ]
    if groups["pairs"]:
        lines.append(f"{groups['found']} of {groups['pairs']} pairs of one group are near-duplicates")
    lines.append(
        f"near-duplicates and groups make {plural(report.clusters, 'cluster')} with {report.clustered} clips, "
        f"the largest of {report.largest_cluster}"
    )
    lines += [
        f"  {e['similarity']:.3f}  {e['clip_a']} ({e['side_a']}), {e['clip_b']} ({e['side_b']})"
        for e in report.examples[:5]
    ]
    lines += [f"written: {path}" for path in report.files]
    for fold in report.folds:
        name = f" {fold['fold']}" if fold["fold"] else ""
        lines.append(f"{report.split}{name}, seed {report.seed}: {fold['text']}")
    if manifest is not None:
        words = command("extract", str(manifest), root="VIDEOS", cache=cache)
        lines.append(
            f"to train by these groups, look through them, then: {words} (and --backbone, --preset and other options "
            "as before)"
        )
    return _lines(lines)


def compare_text(report: CompareReport) -> str:
    """Return each model's accuracy and which is better."""
    lines = _notes(report.notes)
    for m in report.models:
        choose = ", tied for best: choose the simplest of these" if m.tied else ", best: choose by this"
        spread = "" if m.sd is None else f", sd {m.sd:.1%} over {len(m.seeds)} seeds"
        beside = choose * m.chosen + ", on different clips from the others" * m.apart
        validated = f"validation {m.val_accuracy:.1%}{beside}"
        told = f"95 % {bounds(m.ci95)}, n = {m.n}; {validated}"
        lines.append(f"{m.accuracy:6.1%}{spread} ({told})  {m.name}, split {m.split} <- {m.folder}")
    lines += [pair.text for pair in report.pairs]
    return _lines(lines, tried(report) if report.pairs else "", f"written: {report.out}" if report.out else "")


def reproduce_text(report: ReproduceReport) -> str:
    """Return the paper's table with our results."""
    wide = max([22, *(len(r.split) for r in report.table2)]) + 2
    head = f"{'split':<{wide}}{'preset':<8}{'model':<29}{'features':<22}{'accuracy':>10}{'sd':>7}{'n':>7}{'paper':>8}"
    lines = _notes(report.notes)
    lines += [f"failed: {f['clip_id']}: {f['reason']}" for f in report.failed]
    lines.append(head)
    for r in report.table2:
        printed = "" if r.printed is None else f"{r.printed:.1%}"
        spread = f"{r.figures['accuracy_sd']:.1%}" if r.seeds > 1 else ""
        lines.append(
            f"{r.split:<{wide}}{r.preset:<8}{r.variant:<29}{r.backbone:<22}{r.figures['accuracy']:>10.1%}"
            f"{spread:>7}{r.n:>7}{printed:>8}"
        )
    lines += [f"{name}: {100 * gap:+.1f} points" for name, gap in report.gap.items()]
    return _lines(lines, report.comparisons, f"report: {report.page} ({report.seconds:.0f} s)")


def sweep_text(report: SweepReport) -> str:
    """Return what a search tried and found, and how to train with the result; notes were printed before."""
    best = report.finalists[0]
    return _lines(
        f"{report.tries['finished']} trials finished, {report.tries['given_up']} given up early, on the validation "
        f"sides of {plural(len(report.splits), 'split')} ({report.n_val} clips), in {report.seconds:.0f} s",
        f"validation accuracy in the search: {report.start:.1%} with --recipe native, {best['val_accuracy']:.1%} with "
        f"the trial that was chosen of {report.tries['finished']}; with other seeds {report.start_again:.1%} and "
        f"{best['val_accuracy_again']:.1%}, the highest of {plural(len(report.finalists), 'finalist')}",
        _told_from_native(report),
        [] if report.beaten else "no trial did better than --recipe native with other seeds: keep it",
        "so --recipe native may as well be kept; to train with the recipe found:"
        * (report.beaten and report.within_chance),
        report.commands if report.beaten else [],
    )


def _told_from_native(report: SweepReport) -> str:
    p = f"exact paired test by groups, p = {report.finalists[0]['p']:.2g}, {report.n_distinct} different clips"
    if report.within_chance:
        return f"this difference may be due to chance ({p})"
    if not report.beaten:
        return f"native's lead is more than chance would explain ({p})"
    return (
        f"this difference is more than chance would explain ({p}), but the search chose by these clips: test it once "
        "on others"
    )


def check_text(report: CheckReport) -> str:
    """Return the problems of a cache, and what was done about them."""
    lines = [f"{p['path']}: {p['reason']}" for p in report.problems] + _notes(report.notes)
    read = f"{plural(report.parts, 'part')} with {plural(report.rows, 'row')} read"
    lines.append(f"{read}, {plural(len(report.problems), 'problem')}")
    if report.repaired:
        lines.append(f"{plural(report.repaired, 'file')} set aside or rebuilt: run `extract` again to redo their clips")
    elif report.repairable:
        lines.append("add --repair to set them aside")
    if report.largest_distance is not None:
        lines.append(f"{report.recomputed} recomputed: largest cosine distance {report.largest_distance:.2e}")
    return _lines(lines)


def doctor_text(report: DoctorReport) -> str:
    """Return whether everything works here: one line per item checked, then what is missing."""
    lines = {
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "processor": _processor(report),
        "GPU": _gpu(report),
        "memory": f"{size(report.memory_free)} free of " * bool(report.memory_free) + size(report.memory)
        if report.memory
        else "",
        "disk": f"{size(report.disk_free)} free in {report.disk}, enough for about "
        f"{plural(_rounded(report.disk_free // report.clip_bytes), 'clip')} of {size(report.clip_bytes)}",
        "cache": _cache(report),
        "weights": _weights(report),
        "compiler": _compiler(report),
        "optional": "; ".join(_optional(name, packages) for name, packages in report.lacking.items()),
        "trial": _trial(report),
        "video": _video(report),
        "time": _estimate(report),
    }
    wide = max(map(len, lines)) + 2
    return _lines(
        [f"{name:<{wide}}{text}" for name, text in lines.items() if text],
        [f"problem: {problem}" for problem in report.problems.values()] or "nothing is missing for `extract`",
    )


def _processor(report: DoctorReport) -> str:
    threads = plural(report.threads, "thread")
    here = f"{report.cores} of its {plural(report.cores_there, 'core')} can be used, by {threads}"
    fast = "fast with 16-bit numbers (bf16)" if report.bf16_is_fast else "not fast with 16-bit numbers (bf16)"
    used = {"bf16": ", which are used", "fp32": ": 32-bit ones (fp32) are used"}.get(report.precision, "")
    return f"{report.processor}: {here}; {fast}{used * (report.device == 'cpu')}"


def _gpu(report: DoctorReport) -> str:
    if report.gpu:
        memory = f" with {size(report.gpu_bytes)}" if report.gpu_bytes else ""
        return f"{report.gpu}{memory}, used as {report.device}, computing in {report.precision}"
    if report.gpu_overlooked:
        return f"there seems to be one that is not used. {report.gpu_overlooked}"
    if report.gpu_seen:
        return "there is one, and it is not used: `--device auto` would take it"
    return "PyTorch sees none: the processor computes everything"


def _cache(report: DoctorReport) -> str:
    if report.cache is None:
        return ""
    if report.cache_clips is not None:
        return (
            f"{report.cache} opens and holds {plural(report.cache_clips, 'clip')}; `fitrec-cache check` looks at every "
            "file of it"
        )
    if "cache" in report.problems:
        return f"{report.cache} cannot be used: see below"
    return f"{report.cache} is new: `extract` will make it"


def _weights(report: DoctorReport) -> str:
    if report.weights_here is None:
        return f"{report.backbone}: not available, see below"
    where = {"embedded": "installed with this program", "hub": "on this machine, fetched from the hub before"}
    if not report.weights_here:
        return f"{report.backbone}: not on this machine yet; `extract` downloads them"
    return f"{report.backbone}: {where.get(report.weights, report.weights)}"


def _compiler(report: DoctorReport) -> str:
    if report.device == "mps":
        return "not looked at: for Apple's GPU, `--compile` takes what comes with PyTorch"
    return report.compiler or "there is one, so `extract --compile` can work"


def _optional(name: str, lacking: Sequence[str]) -> str:
    if not lacking:
        return f"`{name}` can work"
    return f"`{name}` needs {listed(lacking)}: pip install {' '.join(lacking)}"


def _trial(report: DoctorReport) -> str:
    if report.trial is not None:
        took = f"{report.backbone} took {lasting(report.trial.seconds)} to embed a synthetic clip on {report.device}"
        others = _others(report.trial.others, ": alone it is faster")
        return "; ".join(filter(None, [f"{took}, in {report.precision}", others]))
    if report.weights_here is False:
        return "left out, as the weights are not here yet"
    return "left out: see below"


def _video(report: DoctorReport) -> str:
    v = report.video
    if v is None:
        if "video" in report.problems:
            return "cannot be used: see below"
        return "none given: `fitrec-cache doctor VIDEO` tries one of yours"
    what = f"{v.codec}, {v.width}x{v.height}, {plural(v.frames, 'frame')}, decoded in {lasting(v.seconds)}"
    return "; ".join([f"{plain_text(v.path)}: {what}", *v.warnings])


def _estimate(report: DoctorReport) -> str:
    from fitrec_cache.doctor import MANY

    what = {"embed": "embedding", "decode": "decoding"}
    parts = [f"{lasting(seconds)} of {what[name]}" for name, seconds in report.estimate.items() if name in what]
    where = "on these cores" if report.device in ("", "cpu") else f"on {report.device} and these cores"
    where += " beside the other programs" * bool(report.trial and report.trial.others)
    then = f"; then `learn` trains for {roughly(report.estimate['train'])}" if "train" in report.estimate else ""
    return f"{MANY:,} such clips take about {' and '.join(parts)} {where}{then}" if parts else ""


def _rounded(n: int) -> int:
    """Return a number rounded to two digits, as no more are known."""
    return int(float(f"{n:.1e}"))


def pack_text(report: PackReport) -> str:
    """Return the description of a packed file."""
    shape = f"{plural(report.clips, 'clip')} x {plural(report.frames, 'frame')} x {report.dim}"
    return _lines(_notes(report.notes), f"{report.out}: {shape}, {size(report.bytes)}")


def page_text(found: PageReport) -> str:
    """Return where the HTML report is, and what is missing from it."""
    what = f"{plural(found.models, 'model')}, {plural(found.runs, 'run')}, {size(found.bytes)}"
    notes = _notes(found.notes) + [f"not shown: {m}" for m in found.missing]
    return _lines(notes, f"{found.out}: {what}")


def export_text(report: ExportReport) -> str:
    """Return what was exported, and how much it differs from PyTorch's results."""
    seeds = f" of {report.heads} seeds together" if report.heads > 1 else ""
    return _lines(
        [f"{report.out}/{name}: {size(n)}" for name, n in report.files.items()],
        f"probabilities{seeds} differ from PyTorch's by at most {report.difference:.1e} on synthetic frames; "
        f"{report.seconds:.1f} s. docs/export.md says how to use them",
        _notes(report.notes),
    )
