"""Split clips into training, validation and test by rules; each rule states what it keeps apart.

How the rule ``group`` chooses (first the test side, then the validation side from the rest):

1. The groups are shuffled by the seed.
2. The classes are visited in order of their number of groups, fewest first. If a class has no clip on the side yet, the
   first of its groups, in shuffled order, that brings the side closer to 20 % of each class is moved there; if no group
   does, the one that increases the distance least.
3. Every other group, in shuffled order, is moved to the side if that brings it closer to 20 % of each class.

A group is never moved if that would leave a class without a group for training or, if the class has three groups or
more, for validation. The distance is the sum over classes of (clips on the side - 20 % of the clips) squared, divided
by 20 % of the clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import digest, with_home
from fitrec_cache.dataset.clips import group_number, plain_text
from fitrec_cache.dataset.manifests import listed_names
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.video.spans import file_of, is_part
from fitrec_cache.wording import plural, some

SHARE = 0.2
"""Share of the clips used for testing, and of the rest for validation: the paper's 80/20, then 80/20."""

IntArray = NDArray[np.int64]


def say_untrained(classes: Sequence[str]) -> list[str]:
    """Return, in words, that these classes cannot be learned; empty if there are none."""
    return [f"{_have(classes)} no training clip: {', '.join(classes)}"] if classes else []


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The clip numbers of each side, ascending and disjoint; they index the sequences given to :func:`make_split`.

    Attributes:
        rule: The rule that made it; instead of ``auto``, the rule that it chose.
        train: Clips to train on, int64.
        val: Clips on which the temperature and the threshold for "unknown" are fitted, by which models are chosen and,
            with ``keep=best``, the epoch, int64.
        test: Clips that are not used until all training is done, int64.
        notes: What a reader of the results must know, besides the following.
        sharing: Number of test clips whose group also has clips in training or validation.
        untrained: Classes on some side that have no training clip, sorted.
    """

    rule: str
    train: IntArray
    val: IntArray
    test: IntArray
    notes: tuple[str, ...]
    sharing: int = 0
    untrained: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[IntArray, IntArray, IntArray]:
        """Training, validation and test."""
        return self.train, self.val, self.test

    def classes(self, labels: Sequence[str]) -> tuple[list[str], IntArray]:
        """Return the K classes that occur on any side, sorted, and the class number of each clip; -1 if none of them.

        Args:
            labels: Class of each clip, length N.
        """
        names = sorted({labels[i] for side in self.sides for i in side.tolist()})
        numbers = {name: k for k, name in enumerate(names)}
        return names, np.array([numbers.get(label, -1) for label in labels], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Clips:
    """The clips sorted by their ids, so that no rule depends on the order in which they were given.

    ``order`` has the caller's number of each clip.
    """

    ids: list[str]
    labels: list[str]
    groups: list[str | None]
    order: list[int]

    @classmethod
    def of(cls, clip_ids: Sequence[str], labels: Sequence[str], groups: Sequence[str | None]) -> _Clips:
        """Return clips from the caller's sequences; raises the errors of :func:`make_split`."""
        if not len(clip_ids) == len(labels) == len(groups):
            raise ValueError(
                f"got {len(clip_ids)} clip ids, {len(labels)} labels, {len(groups)} groups: expected as many"
            )
        if len(set(clip_ids)) != len(clip_ids):
            raise ValueError(f"clip id '{Counter(clip_ids).most_common(1)[0][0]}' occurs twice: expected each once")
        order = sorted(range(len(clip_ids)), key=lambda i: clip_ids[i])
        ids, known = [clip_ids[i] for i in order], [groups[i] for i in order]
        if len(names := sorted(set(map(str, labels)))) < 2:
            got = f"one class, '{names[0]}'" if names else "no clips"
            raise UsageError(f"got {got}: expected clips of at least two classes to tell apart")
        return cls(ids=ids, labels=[str(labels[i]) for i in order], groups=known, order=order)

    @property
    def units(self) -> list[str]:
        """The unit of each clip, which stays together: its group, or the clip itself if its group is unknown."""
        return units_of(self.ids, self.groups)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """The decision of a rule: the test clips, the other clips in use, and the units to keep together in validation.

    ``val`` are those of the other clips that are for validation, if the rule decides that too.
    """

    test: set[int]
    rest: set[int]
    units: Sequence[str]
    val: set[int] | None = None
    notes: list[str] = field(default_factory=list)


_Rule = Callable[[_Clips, str, np.random.Generator], _Sides]


def make_split(
    rule: str, *, clip_ids: Sequence[str], labels: Sequence[str], groups: Sequence[str | None], seed: int
) -> Split:
    """Split clips into training, validation and test.

    Args:
        rule: ``group`` (no group on two sides, about 80/20 and then 80/20 of each class; a clip of unknown group
            counts as a group of its own), ``random`` (the same by clip), ``official1``, ``official2``, ``official3``
            (UCF101: groups 1-7, 8-14 or 15-21 are tested), ``list:TRAIN,TEST`` (two UCF101-style files) or ``auto``
            (``group`` if any group is known, else ``random``). If a rule only fixes the test side, validation clips
            are taken from the rest as by ``group`` or ``random``.
        clip_ids: Name of each clip, length N, no name twice.
        labels: Class of each clip, length N.
        groups: Recording each clip was cut from, length N, None where unknown.
        seed: Seed of the rule. The same seed and clips give the same split, in whatever order the clips are given.

    Returns:
        The three sides. They contain every clip, except that ``list:`` leaves out clips that no list names.

    Raises:
        UsageError: If the rule is unknown or needs groups or numbers that are missing, if there are fewer than two
            classes, if a side would be empty, or if the seed is negative.
        ValueError: If the sequences differ in length or a name occurs twice.

    Example:
        >>> names = [f"{label}/{k}.avi" for label in ("Lunge", "Squat") for k in range(5)]
        >>> split = make_split("random", clip_ids=names, labels=[n[:5] for n in names], groups=[None] * 10, seed=0)
        >>> len(split.train), len(split.val), len(split.test)
        (6, 2, 2)
    """
    check_seed(seed)
    clips = _Clips.of(clip_ids, labels, groups)
    rng = np.random.default_rng(seed)
    rule, notes = _resolve(rule, clips)
    sides = _find_rule(rule)(clips, rule.partition(":")[2], rng)
    return _divide(rule, clips, replace(sides, notes=[*notes, *sides.notes]), rng)


def hold_out(
    rule: str,
    test: Collection[str],
    train: Collection[str],
    val: Collection[str] | None = None,
    *,
    clip_ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str | None],
    seed: int,
) -> Split:
    """Return the split that tests some clips and trains on others.

    Args:
        rule: Name of the rule.
        test: Ids, among ``clip_ids``, of the clips to test.
        train: Ids of other clips, to train on; clips on no side are left out, with a note.
        val: Ids of other clips, to validate on; None: they are taken from ``train``, as by ``group`` or ``random``.
        clip_ids: This and the following as in :func:`make_split`.
        labels: Class of each clip.
        groups: Recording of each clip.
        seed: Seed of the choice of validation clips.

    Raises:
        UsageError: If there are fewer than two classes, or a side would be empty.
    """
    clips = _Clips.of(clip_ids, labels, groups)
    numbers = {name: i for i, name in enumerate(clips.ids)}
    tested, trained, validated = ({numbers[name] for name in side} for side in (test, train, val or ()))
    given = None if val is None else validated
    sides = _Sides(test=tested, rest=trained | validated, val=given, units=clips.units)
    if left := len(clips.ids) - len(sides.test) - len(sides.rest):
        sides.notes.append(f"left out: {left} of {len(clips.ids)} clips are on no side")
    return _divide(rule, clips, sides, np.random.default_rng(seed))


def _divide(rule: str, clips: _Clips, sides: _Sides, rng: np.random.Generator) -> Split:
    """Return the split in the caller's numbering, after choosing validation clips from the rest if none are given."""
    val = _carve(clips.labels, sides.units, sides.rest, rng, spare=1) if sides.val is None else sides.val
    parts = {"train": sides.rest - val, "val": val, "test": sides.test}
    _check_sides(rule, parts)
    labels = {name: {clips.labels[i] for i in part} for name, part in parts.items()}
    return Split(
        rule=rule,
        **{name: np.array(sorted(clips.order[i] for i in part), dtype=np.int64) for name, part in parts.items()},
        notes=tuple(map(plain_text, (*sides.notes, *_remarks(clips, parts)))),
        sharing=count_sharing(parts["test"], parts["train"] | parts["val"], clips.groups),
        untrained=tuple(sorted(set().union(*labels.values()) - labels["train"])),
    )


def check_seed(seed: int) -> None:
    """Raise UsageError unless both numpy and PyTorch accept the seed."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed}: expected 0 to 2^63 - 1")


def check_seeds(seed: Sequence[int]) -> None:
    """Raise UsageError unless there is at least one seed, each occurs once, and each is from 0 to 2^63 - 1."""
    if not seed or len(set(seed)) != len(seed):
        raise UsageError(f"seeds {list(seed)}: expected at least one, and each once")
    for each in seed:
        check_seed(each)


def known_groups(side: Iterable[int], groups: Sequence[str | None]) -> set[str]:
    """Return the known groups of the clips of one side."""
    return {group for i in side if (group := groups[i]) is not None}


def count_sharing(test: Iterable[int], trained: Iterable[int], groups: Sequence[str | None]) -> int:
    """Return how many test clips belong to a group that also has clips in training."""
    known = known_groups(trained, groups)
    return sum(groups[i] in known for i in test)


# --- rules: each takes the clips, the argument after the colon, and the random number generator ---


def _by_group(clips: _Clips, _argument: str, rng: np.random.Generator) -> _Sides:
    if not any(clips.groups):
        raise UsageError(
            f"split 'group' needs groups, and none of {len(clips.ids)} clips has one, such as '{clips.ids[0]}'. Give a "
            "manifest with a group column, or use the split 'random'"
        )
    return _test_from_all(clips, clips.units, rng)


def _by_clip(clips: _Clips, _argument: str, rng: np.random.Generator) -> _Sides:
    return _test_from_all(clips, clips.ids, rng)


def _test_from_all(clips: _Clips, units: Sequence[str], rng: np.random.Generator) -> _Sides:
    everything = set(range(len(clips.ids)))
    test = _carve(clips.labels, units, everything, rng, spare=2)
    return _Sides(test=test, rest=everything - test, units=units)


def _official(first: int) -> _Rule:
    """Return the rule that tests on the seven groups from ``first`` on, as in UCF101's official splits."""

    def rule(clips: _Clips, _argument: str, _rng: np.random.Generator) -> _Sides:
        if bare := [name for name, group in zip(clips.ids, clips.groups, strict=True) if group is None]:
            raise UsageError(
                f"an official split needs the group of every clip: {len(bare)} of {len(clips.ids)} have none, such as "
                f"'{bare[0]}'. Give a manifest with a group column, or use the split 'random'"
            )
        numbers = [None if group is None else group_number(group) for group in clips.groups]
        if None in numbers:
            raise UsageError(
                f"an official split needs UCF101's group numbers: got the group '{clips.groups[numbers.index(None)]}', "
                f"expected names such as 'Lunges_g07' or 7. Use the split 'group' instead"
            )
        test = {i for i, number in enumerate(numbers) if number in range(first, first + 7)}
        return _Sides(test=test, rest=set(range(len(numbers))) - test, units=clips.units)

    return rule


def _two_lists(argument: str) -> list[Path]:
    paths = argument.split(",")
    if len(paths) != 2 or not all(paths):
        raise UsageError(f"split 'list:{argument}': expected list:TRAIN,TEST with the paths of two files")
    return [Path(with_home(path)) for path in paths]  # shells expand ~ only at the beginning


def short_rule(rule: str) -> str:
    """Return a rule for display, without the folders of its lists."""
    name, colon, argument = rule.partition(":")
    if name != "list" or not colon:
        return rule
    return "list:" + ",".join(plain_text(Path(path).name) for path in argument.split(","))


def sides_digest(split: Mapping[str, Any]) -> str:
    """Return a digest of a run's sides if its rule reads them from lists or a manifest; otherwise an empty text.

    It tells such splits apart by their clips, wherever the lists or the manifest are.

    Args:
        split: The entry ``split`` of a run: ``rule``, and the clips of ``train``, ``val`` and ``test``.
    """
    if not str(split["rule"]).startswith(("list:", "manifest")):
        return ""
    sides = [sorted([*split["train"], *split["val"]]), sorted(split["test"])]
    return digest(sides)[:16]


def _by_lists(clips: _Clips, argument: str, _rng: np.random.Generator) -> _Sides:
    """Take training and test from two lists of names."""
    names = [[name for _, name in listed_names(path)] for path in _two_lists(argument)]
    (rest, lost_train), (test, lost_test) = _match(names, clips)
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
    return _Sides(test=test, rest=rest, units=clips.units, notes=notes)


_RULES: dict[str, _Rule] = {
    "group": _by_group,
    "random": _by_clip,
    "official1": _official(1),
    "official2": _official(8),
    "official3": _official(15),
    "list": _by_lists,
}
_WITH_ARGUMENT = {"list": "list:TRAIN,TEST"}

#: Rules of :mod:`fitrec_cache.dataset.folds`, listed along with these in messages.
FOLD_RULES = ("kfold:K", "folds:COLUMN", "leave-one:COLUMN", "manifest")


def _resolve(rule: str, clips: _Clips) -> tuple[str, list[str]]:
    """Return the rule that ``auto`` stands for; any other rule is returned unchanged."""
    if rule != "auto":
        return rule, []
    if any(clips.groups):
        return "group", []
    return "random", ["split by clip: no clip has a group, so test clips may resemble training clips"]


def check_rule(rule: str) -> None:
    """Raise UsageError if there is no such rule, regardless of the clips."""
    with_argument = {each.partition(":")[0] for each in FOLD_RULES if ":" in each}
    if rule not in ("auto", "manifest") and rule.partition(":")[0] not in with_argument:
        _find_rule(rule)


def _find_rule(rule: str) -> _Rule:
    name, colon, _ = rule.partition(":")
    if name not in _RULES or bool(colon) != (name in _WITH_ARGUMENT):
        raise unknown_name("split", rule, ["auto", *(_WITH_ARGUMENT.get(each, each) for each in _RULES), *FOLD_RULES])
    return _RULES[name]


# --- the greedy choice ---


def _carve(
    labels: Sequence[str], units: Sequence[Hashable], pool: Iterable[int], rng: np.random.Generator, *, spare: int
) -> set[int]:
    """Choose about 20 % of each class of the pool, in whole units.

    Args:
        labels: Class of each clip.
        units: The unit of each clip; a unit moves as a whole.
        pool: Clips to choose from.
        rng: Source of the order in which units are tried.
        spare: Number of units that a class with more than ``spare`` units keeps in the pool; any other class keeps one.

    Returns:
        The chosen clips.
    """
    members = sorted(pool)
    names = list(dict.fromkeys(units[i] for i in members))
    rows, columns = {name: g for g, name in enumerate(names)}, sorted({labels[i] for i in members})
    counts = np.zeros((len(names), len(columns)), dtype=np.int64)  # (G, K)
    where = {label: k for k, label in enumerate(columns)}
    for i in members:
        counts[rows[units[i]], where[labels[i]]] += 1
    chosen = {names[g] for g in _choose(counts, rng.permutation(len(names)), spare)}
    return {i for i in members if units[i] in chosen}


def _choose(counts: IntArray, order: IntArray, spare: int) -> set[int]:
    """Return the rows of ``counts`` (units x classes) that form the side, by the rule in the module docstring."""
    target = SHARE * counts.sum(axis=0)  # (K,)
    left = (counts > 0).sum(axis=0)  # (K,) units still in the pool
    keep = np.where(left > spare, spare, 1)
    have = np.zeros(counts.shape[1])
    chosen: set[int] = set()

    def gain(g: IntArray | int) -> NDArray[np.float64]:
        """Return how much closer each of these units would bring the side to the target."""
        away = have - target
        return np.asarray(((away**2 - (away + counts[g]) ** 2) / target).sum(axis=-1))

    def allowed(g: IntArray | int) -> NDArray[np.bool_]:
        return np.asarray(((counts[g] == 0) | (left > keep)).all(axis=-1))

    def take(g: int) -> None:
        nonlocal have, left
        have, left = have + counts[g], left - (counts[g] > 0)
        chosen.add(g)

    for k in np.argsort(left, kind="stable"):
        of_class = order[counts[order, k] > 0]
        candidates = of_class[allowed(of_class)]
        if have[k] == 0 and len(candidates):
            gains = gain(candidates)
            take(int(candidates[np.argmax(gains > 0) if (gains > 0).any() else np.argmax(gains)]))
    for g in order.tolist():
        if g not in chosen and allowed(g) and gain(g) > 0:
            take(g)
    return chosen


# --- lists ---


def _match(lists: Sequence[Sequence[str]], clips: _Clips) -> list[tuple[set[int], list[str]]]:
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


# --- checks and notes ---


def _check_sides(rule: str, parts: dict[str, set[int]]) -> None:
    if empty := [name for name, part in parts.items() if not part]:
        sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
        raise UsageError(
            f"split '{rule}' leaves no clips to {' or '.join(empty)} on ({sizes}). Expected some on each side: add "
            f"clips, so that a class has at least three (in three groups if the split goes by group), or use another "
            f"split"
        )


def _have(classes: Sequence[str]) -> str:
    return plural(len(classes), "class has", "classes have")


def _remarks(clips: _Clips, parts: dict[str, set[int]]) -> list[str]:
    """Return other notes that a reader of the results must know."""
    sizes, used = Counter(clips.labels), set().union(*parts.values())
    trained, tested = ({clips.labels[i] for i in parts[side]} for side in ("train", "test"))
    known = {clips.labels[i] for i in used}
    single = sorted(label for label in trained if sizes[label] == 1)
    notes = [f"class {label} has one clip: it stays in training" for label in single]
    if untested := sorted(known - tested - set(single)):
        notes.append(f"{_have(untested)} no test clip: {', '.join(untested)}")
    if absent := sorted(sizes.keys() - known):
        many = plural(len(absent), "class is", "classes are")
        notes.append(f"{many} on no side and not learned: {', '.join(absent)}")
    return notes
