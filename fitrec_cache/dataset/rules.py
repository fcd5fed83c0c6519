"""The rules by which clips are split: what each is called, what it keeps apart, and how it is spoken of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np

from fitrec_cache.common.files import digest, with_home
from fitrec_cache.dataset.clips import SIDES, group_number, plain_text
from fitrec_cache.dataset.manifests import listed_names
from fitrec_cache.dataset.splits import Clips, Sides, carve
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.video.spans import file_of, is_part
from fitrec_cache.wording import listed, plural, some

Folds = list[tuple[str, Sides]]
"""The sides of each fold, with its name; a rule that makes only one leaves the name empty."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to split clips.

    Attributes:
        form: The rule as it is given, with capitals in the place of its argument.
        make: Returns the folds of these clips, by the whole rule and a seed.
        paths: Whether the argument has paths, which are shown without their folders.
        listed: Whether the user names the clips of each side, so that the same text may give other sides.
        by_column: Whether each value of a manifest's column is the test side once.
        by_fold: Whether all test clips of a fold are one statistical unit: the column was left out because clips with
            the same value are not independent, and the results are meant for other values.
    """

    form: str
    make: Callable[[Clips, str, int], Folds]
    paths: bool = False
    listed: bool = False
    by_column: bool = False
    by_fold: bool = False


def check_rule(text: str) -> None:
    """Raise UsageError if there is no such rule, regardless of the clips."""
    rule = rule_of(text)
    if text != "auto" and (rule is _OTHER or (":" in rule.form) != (":" in text)):
        raise unknown_name("split", text, ["auto", *(each.form for each in _RULES.values())])


def rule_of(text: str) -> Rule:
    """Return the rule of a text, such as that of a run; for an unknown one a rule without special properties."""
    return _RULES.get(text.partition(":")[0], _OTHER)


def short_rule(text: str) -> str:
    """Return a rule for display, without the folders of its lists."""
    if not rule_of(text).paths:
        return text
    name, colon, argument = text.partition(":")
    return name + colon + ",".join(plain_text(Path(path).name) for path in argument.split(","))


def sides_digest(split: Mapping[str, Any]) -> str:
    """Return a digest of a run's sides if its rule reads them from lists or a manifest; otherwise an empty text.

    It tells such splits apart by their clips, wherever the lists or the manifest are.

    Args:
        split: The entry ``split`` of a run: ``rule``, and the clips of ``train``, ``val`` and ``test``.
    """
    if not rule_of(str(split["rule"])).listed:
        return ""
    sides = [sorted([*split["train"], *split["val"]]), sorted(split["test"])]
    return digest(sides)[:16]


def column_digest(
    rule: str, clip_ids: Sequence[str], groups: Sequence[str | None], extra: Sequence[Mapping[str, str]]
) -> str:
    """Return a digest of each clip's value in the column by which a rule makes folds; empty for other rules."""
    if not rule_of(rule).by_column:
        return ""
    return digest(sorted(zip(clip_ids, values_of(rule, groups, extra), strict=True)))


def values_of(rule: str, groups: Sequence[str | None], extra: Sequence[Mapping[str, str]]) -> list[str]:
    """Return each clip's value in the column that a rule names (``group``: its group); empty if it has none."""
    column = rule.partition(":")[2]
    return [g or "" for g in groups] if column == "group" else [e.get(column, "") for e in extra]


def units_of_run(run: Mapping[str, Any]) -> list[str]:
    """Return the statistical unit of each test clip of a run, from the content of its ``run.json``.

    Under a rule ``by_fold`` it is the fold, otherwise as in :func:`fitrec_cache.dataset.units.units_of`.
    """
    split, fold = run["split"], str(run["fold"])
    if rule_of(str(split["rule"])).by_fold and fold:
        return [f"fold {fold}"] * len(split["test"])
    return units_of(split["test"], split["test_groups"])


# --- one split ---


def _by_group(clips: Clips, _rule: str, seed: int) -> Folds:
    if not any(clips.groups):
        raise UsageError(
            f"split 'group' needs groups, and none of {len(clips.ids)} clips has one, such as '{clips.ids[0]}'. Give a "
            "manifest with a group column (with your own features, groups beside them), or use the split 'random'"
        )
    return _from_all(clips, clips.units, seed)


def _by_clip(clips: Clips, _rule: str, seed: int) -> Folds:
    return _from_all(clips, clips.ids, seed)


def _from_all(clips: Clips, units: Sequence[str], seed: int) -> Folds:
    rng, everything = np.random.default_rng(seed), set(range(len(clips.ids)))
    test = carve(clips.labels, units, everything, rng, spare=2)
    rest = everything - test
    return [("", Sides(test=test, rest=rest, val=carve(clips.labels, units, rest, rng, spare=1)))]


def _official(clips: Clips, rule: str, _seed: int) -> Folds:
    """Test on seven of UCF101's groups."""
    if bare := [name for name, group in zip(clips.ids, clips.groups, strict=True) if group is None]:
        raise UsageError(
            f"an official split needs the group of every clip: {len(bare)} of {len(clips.ids)} have none, such as "
            f"'{bare[0]}'. Give a manifest with a group column (with your own features, groups beside them), or use "
            "UCF101's own lists: list:TRAIN,TEST"
        )
    numbers = [None if group is None else group_number(group) for group in clips.groups]
    if None in numbers:
        raise UsageError(
            f"an official split needs UCF101's group numbers: got the group '{clips.groups[numbers.index(None)]}', "
            f"expected names such as 'Lunges_g07' or 7. Use the split 'group' instead"
        )
    first = 7 * int(rule[-1]) - 6
    test = {i for i, number in enumerate(numbers) if number in range(first, first + 7)}
    return [("", Sides(test=test, rest=set(range(len(numbers))) - test))]


def _by_lists(clips: Clips, rule: str, _seed: int) -> Folds:
    """Take training and test from two lists of names."""
    paths = _two_lists(rule)
    names = [[name for _, name in listed_names(path)] for path in paths]
    (rest, lost_train), (test, lost_test) = _match(names, clips)
    for path, those, found in zip(paths, names, (rest, test), strict=True):
        if not found:
            raise UsageError(
                f"no name in {path} is that of one clip: got names such as '{those[0]}', expected some such as "
                f"'{clips.ids[0]}'"
            )
    if both := sorted(clips.ids[i] for i in rest & test):
        raise UsageError(
            f"{plural(len(both), 'clip is', 'clips are')} in both lists, such as '{both[0]}': expected each in one"
        )
    notes = []
    if left := len(clips.ids) - len(rest) - len(test):
        notes.append(f"left out: {left} of {len(clips.ids)} clips are in neither list")
    for side, lost in (("train", lost_train), ("test", lost_test)):
        if lost:
            notes.append(f"{plural(len(lost), 'name')} of the {side} list without a clip: {some(lost)}")
    return [("", Sides(test=test, rest=rest, notes=notes))]


def _two_lists(rule: str) -> list[Path]:
    paths = rule.partition(":")[2].split(",")
    if len(paths) != 2 or not all(paths):
        raise UsageError(f"split '{rule}': expected list:TRAIN,TEST with the paths of two files")
    return [Path(with_home(path)) for path in paths]  # shells expand ~ only at the beginning


def _by_manifest(clips: Clips, _rule: str, _seed: int) -> Folds:
    column = [e.get("split", "") for e in clips.extra]
    unknown = sorted(set(column).difference(SIDES, {""}))
    if not any(column):
        raise UsageError(
            "--split manifest reads the manifest's column split, which no clip has: extract from a manifest that has "
            "it, with train, test, optionally val, or use another split"
        )
    if unknown or "test" not in column or "train" not in column:
        example = next((f", such as of {name}" for name, s in zip(clips.ids, column, strict=True) if s in unknown), "")
        got = listed(unknown or sorted({*column} - {""}))
        raise UsageError(
            f"--split manifest reads the manifest's column split: got {got}{example}; "
            "expected train, test, optionally val. Correct the manifest and extract it again"
        )
    train, val, test = ({i for i, s in enumerate(column) if s == side} for side in SIDES)
    left = len(column) - len(train | val | test)
    notes = [f"left out: {left} of {len(column)} clips are on no side"] if left else []
    return [("", Sides(test=test, rest=train | val, val=val or None, notes=notes))]


# --- folds ---


def _k_folds(clips: Clips, rule: str, seed: int) -> Folds:
    argument = rule.partition(":")[2]
    if not (argument.isascii() and argument.isdigit()) or int(argument) < 2:
        raise UsageError(f"split '{rule}': expected kfold:K with a whole number K of at least 2")
    k, units = int(argument), clips.units
    if len(set(units)) < k:
        what = "clips" if all(group is None for group in clips.groups) else "groups"
        raise UsageError(f"split '{rule}' of {len(set(units))} {what}: expected no more folds than {what}")
    if (most := max(Counter(clips.labels).values())) < k:
        raise UsageError(f"split '{rule}': the largest class has {most} clips, expected no more folds")
    from fitrec_cache.evaluation.metrics import stratified_folds  # loads scikit-learn, needless to read a run

    sides = stratified_folds(clips.labels, units, k, seed)
    return _each_tested_once(clips, [("", set(side.tolist())) for side in sides])


def _by_column(clips: Clips, rule: str, _seed: int) -> Folds:
    column, values = rule.partition(":")[2], values_of(rule, clips.groups, clips.extra)
    if column == "group" and not any(values):
        raise UsageError(f"split '{rule}': no clip's group is known; extract from a manifest with the column group")
    if not column or not any(values):
        known = sorted({name for e in clips.extra for name in e})
        raise UsageError(
            f"split '{rule}': no clip has that column. Known are group and "
            f"{', '.join(known) or 'no others'}; extract from a manifest that has it"
        )
    if bare := [c for c, v in zip(clips.ids, values, strict=True) if not v]:
        without = plural(len(bare), "clip has", "clips have")
        raise UsageError(
            f"split '{rule}': {without} no value, such as '{bare[0]}': give each one by a manifest. A row "
            "whose file is missing gives nothing; `extract --prune` without such rows removes the clips"
        )
    if len(tested := sorted(set(values))) < 2:
        raise UsageError(f"split '{rule}': every clip has the value '{values[0]}', expected at least two")
    return _each_tested_once(
        clips, [(f"-{plain_text(value)}", {i for i, v in enumerate(values) if v == value}) for value in tested]
    )


def _each_tested_once(clips: Clips, tests: Sequence[tuple[str, set[int]]]) -> Folds:
    """Return folds named by their number, from 1, and what follows it; padded so that names sort in their order."""
    digits, everything = max(2, len(str(len(tests)))), set(range(len(clips.ids)))
    return [
        (f"{n:0{digits}d}{name}", Sides(test=test, rest=everything - test))
        for n, (name, test) in enumerate(tests, start=1)
    ]


# --- which clips the names of a list mean ---


def _match(lists: Sequence[Sequence[str]], clips: Clips) -> list[tuple[set[int], list[str]]]:
    """Return, for each list, the clips that its names refer to, and the names that refer to none.

    A name is looked up as it is (also as the file of clips that are parts), then by class folder and file name without
    ending, then by file name without ending alone. The last two apply only if they fit a single file, and the last only
    if no other name in the lists has the same file name.
    """
    by_name: dict[str, set[int]] = {}
    ids = [normalize("NFC", clip_id) for clip_id in clips.ids]  # like the names; older caches may differ
    for i, clip_id in enumerate(ids):
        for name in {clip_id, file_of(clip_id)}:
            by_name.setdefault(name, set()).add(i)
    found = [set[int]().union(*(by_name[name] for name in names if name in by_name)) for names in lists]
    others = [[name for name in names if name not in by_name] for names in lists]
    files = sorted(set(map(file_of, ids)))
    by_tail, by_stem = (_index(key, files) for key in (_tail, _stem))
    stems = Counter(map(_stem, set().union(*lists)))
    classes = {label.casefold() for label in clips.labels}

    def meant(name: str) -> set[int]:
        file = by_tail.get(_tail(name))
        hits = by_name[file] if file is not None else set[int]()
        if not hits and stems[_stem(name)] == 1 and (file := by_stem.get(_stem(name))) is not None:
            hits = by_name[file]
            if PurePosixPath(name).parent.name.casefold() in classes - {clips.labels[i].casefold() for i in hits}:
                return set()  # the name refers to another class, where a file has the same name
        return hits

    looked_up = [{name: meant(name) for name in names} for names in others]
    lost = [[name for name, hits in more.items() if not hits] for more in looked_up]
    return [(hits.union(*more.values()), gone) for hits, more, gone in zip(found, looked_up, lost, strict=True)]


def _stem(name: str) -> str:
    return name if is_part(name) else PurePosixPath(name).stem


def _tail(name: str) -> str:
    return name if is_part(name) else "/".join(PurePosixPath(name).with_suffix("").parts[-2:]).casefold()


def _index(key: Callable[[str], str], files: Sequence[str]) -> dict[str, str]:
    """Return the file of each key, omitting keys that several files share."""
    shared = Counter(map(key, files))
    return {key(file): file for file in files if shared[key(file)] == 1}


# --- the table ---

_OTHER = Rule(form="", make=lambda _clips, _rule, _seed: [])
_RULES = {
    rule.form.partition(":")[0]: rule
    for rule in (
        Rule(form="group", make=_by_group),
        Rule(form="random", make=_by_clip),
        Rule(form="official1", make=_official),
        Rule(form="official2", make=_official),
        Rule(form="official3", make=_official),
        Rule(form="list:TRAIN,TEST", make=_by_lists, paths=True, listed=True),
        Rule(form="manifest", make=_by_manifest, listed=True),
        Rule(form="kfold:K", make=_k_folds),
        Rule(form="folds:COLUMN", make=_by_column, by_column=True),
        Rule(form="leave-one:COLUMN", make=_by_column, by_column=True, by_fold=True),
    )
}
