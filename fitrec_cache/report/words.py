"""Numbers as text, and findings as sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fitrec_cache.compare import PairFigures
from fitrec_cache.report.attention import Attention
from fitrec_cache.report.calibration import Confidence
from fitrec_cache.report.models import Model
from fitrec_cache.report.views import ModelView
from fitrec_cache.wording import plural

#: A calibration error is no sign of wrong confidence if it is at most this many times the error expected by chance, or
#: at most this large.
_BY_CHANCE, _NEGLIGIBLE = 1.5, 0.02

_SPACE = "\u00a0"  # keeps a number and its unit on one line


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage; one that would be rounded to 0 or 100 gets a decimal, if that distinguishes it.

    Example:
        >>> [percent(share, 0).replace("\u00a0", " ") for share in (0.48235, 0.995, 1)]
        ['48 %', '99.5 %', '100 %']
    """
    rounded = f"{100 * share:.{digits}f}"
    if rounded in ("0", "100"):
        rounded = f"{100 * share:.1f}".removesuffix(".0")
    return f"{rounded}{_SPACE}%"


def spread(mean: float, deviation: float | None) -> str:
    """Return a mean and, if there is one, its standard deviation over seeds."""
    return percent(mean) if deviation is None else f"{100 * mean:.1f}{_SPACE}±{_SPACE}{100 * deviation:.1f}{_SPACE}%"


def duration(seconds: float) -> str:
    """Return a time in readable form.

    Example:
        >>> duration(4.21).replace("\u00a0", " "), duration(200).replace("\u00a0", " ")
        ('4.2 s', '3 min 20 s')
    """
    if seconds < 60:
        return f"{seconds:.1f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}{_SPACE}h {minutes_left}{_SPACE}min" if hours else f"{minutes}{_SPACE}min {rest}{_SPACE}s"


def headline(model: Model, leaky: Collection[str]) -> str:
    """Return the accuracy of the model that was chosen on validation, as a sentence."""
    clips = f"{percent(model.mean('accuracy'))} of {plural(model.n_distinct, 'clip')}"
    unseen = grouped(model) and model.split not in leaky
    seen = "from groups it had not seen" if unseen else "it was not trained on"
    return f"{model.name} recognises {clips} {seen}"


def grouped(model: Model) -> bool:
    """Say whether all groups are known and no test clip's group is in training or validation."""
    return knows_groups(model) and not any(record.sharing for record in model.runs)


def knows_groups(model: Model) -> bool:
    """Say whether all groups are known that are needed to see whether a test clip shares one with training."""
    return not any(_without_group(record.run_json) for record in model.runs)


def _without_group(run: Mapping[str, Any]) -> bool:
    """Say whether a clip on some side of a run's split has no group, or may have none.

    Older runs say so only of test clips and with the rule ``group``; the other rules named here need all groups, or
    test every clip in some fold.
    """
    if "without_group" in run:
        return bool(run["without_group"])
    split = run["split"]
    told = split["rule"].startswith(("group", "official", "leave-one", "kfold"))
    return not told or bool(split.get("without_group")) or None in split.get("test_groups", ())


def split_notes(models: Sequence[Model]) -> list[str]:
    """Return the notes on the splits of several models, each note once."""
    return list(dict.fromkeys(note for model in models for record in model.runs for note in record.notes))


def results_say(models: Sequence[Model], pairs: Sequence[PairFigures]) -> str:
    """Say whether the best model on validation differs from the next one that it was compared with."""
    lead, *others = [m for m in models if m.split == models[0].split]
    for other in others:
        for pair in pairs:
            if pair.split == lead.split and {pair.a, pair.b} == {lead.name, other.name}:
                return pair.claim
    if others:
        return "These models were not tested on the same clips, so which is better cannot be said"
    clips, (low, high) = plural(models[0].n_distinct, "test clip"), models[0].interval
    return f"With {clips}, the accuracy’s 95 % interval is {percent(low, 0)} to {percent(high, 0)}"


def _together(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def split_says(models: Sequence[Model], leaky: Sequence[str], sure: Collection[str], audited: Collection[str]) -> str:
    """Say which splits leak, as far as was examined; those that are not in ``sure`` may."""
    if leaky:
        surely, maybe = [s for s in leaky if s in sure], [s for s in leaky if s not in sure]
        told = [f"{_together(surely)} {'leaks' if len(surely) == 1 else 'leak'}"] if surely else []
        told += [f"{_together(maybe)} may leak"] if maybe else []
        return f"Split {', '.join(told)}: test clips have siblings or near-duplicates in training"
    if all(m.split in audited for m in models):
        return found_nothing(all(map(knows_groups, models))).capitalize()
    if all(grouped(m) for m in models):
        return "No group is on both sides of a split; whether other clips look alike was not looked at"
    return "Whether every split is free of leaks was not looked at"


def found_nothing(knows: bool) -> str:
    """Say that an audit found nothing, given whether all groups are known."""
    return "no leak was found" if knows else "no near-duplicate was found; not all groups are known"


def curves_say(view: ModelView) -> str:
    """Say how training went."""
    runs = view.model.runs
    trained = sum(float(run.metrics["history"][-1]["train_accuracy"]) for run in runs) / len(runs)
    gap = trained - sum(float(run.best["val_accuracy"]) for run in runs) / len(runs)
    if trained < 0.5:
        return f"It has not learned its training clips: {percent(trained, 0)} right at the end"
    if gap > 0.2:
        return f"It knows its training clips {100 * gap:.0f} points better than those it has not seen"
    return "Training and validation stay together"


def classes_say(view: ModelView) -> str:
    """Say which classes are recognised best and worst."""
    rows = view.classes
    best, worst = ([row.label for row in rows if row.recall == end.recall] for end in (rows[0], rows[-1]))
    if len(best) == len(rows):
        return f"All classes that were tested are recognised equally often: {percent(rows[0].recall, 0)}"
    first = f"{best[0]} is" if len(best) == 1 else f"{len(best)} of {len(rows)} classes are"
    least = min(row.n for row in rows if row.label in best)
    first += f" always recognised (from {plural(least, 'clip')} on)" if rows[0].recall == 1 else " recognised best"
    if len(worst) == 1:
        return f"{first}, {worst[0]} {'never' if rows[-1].recall == 0 else 'worst'}"
    said = "never are" if rows[-1].recall == 0 else f"worst: {percent(rows[-1].recall, 0)} each"
    return f"{first}; {len(worst)} {said}"


def confusions_say(view: ModelView) -> str:
    """Say which confusion is the most frequent."""
    if not view.confusions:
        return "No clip was taken for another class"
    worst, *others = view.confusions
    alone = all(c.times < worst.times for c in others)
    which = "Most frequent mistake" if alone else "One of the most frequent mistakes"
    return f"{which}, in {worst.times} of {worst.of} answers: {worst.true} taken for {worst.guess}"


def attention_says(attention: Attention) -> str:
    """Say how selective the attention is."""
    if attention.even:
        return "This model does not choose among frames"
    sides = (("right", attention.right), ("wrong", attention.wrong))
    shares = [f"about {value:.0f} count where it is {side}" for side, value in sides if value is not None]
    return f"Of {attention.frames} frames {', '.join(shares)}"


def calibration_says(calibration: Confidence) -> str:
    """Say how reliable confidence is."""
    if calibration.ece <= max(_NEGLIGIBLE, _BY_CHANCE * calibration.ece_expected):
        chance = "" if calibration.ece <= _NEGLIGIBLE else f", by chance alone some {percent(calibration.ece_expected)}"
        return f"These clips do not show its confidence to be wrong: off by {percent(calibration.ece)}{chance}"
    if abs(calibration.gap) < 0.02:
        return f"It is as sure as it is right overall, but off by {percent(calibration.ece)} from answer to answer"
    sure = "more" if calibration.gap > 0 else "less"
    return f"It is {100 * abs(calibration.gap):.0f} points {sure} sure than it is right, on average"
