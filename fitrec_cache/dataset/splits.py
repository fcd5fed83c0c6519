"""A split of clips into training, validation and test, and the choice of about a fifth of them in whole groups.

How a side is chosen (first the test side, then the validation side from the rest):

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
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.dataset.clips import plain_text
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError
from fitrec_cache.wording import plural

SHARE = 0.2
"""Share of the clips used for testing, and of the rest for validation: the paper's 80/20, then 80/20."""

IntArray = NDArray[np.int64]


def say_untrained(classes: Sequence[str]) -> list[str]:
    """Return, in words, that these classes cannot be learned; empty if there are none."""
    return [f"{_have(classes)} no training clip: {', '.join(classes)}"] if classes else []


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The clip numbers of each side, ascending and disjoint; they index the sequences that were given.

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
class Clips:
    """The clips sorted by their ids, so that no rule depends on the order in which they were given.

    Attributes:
        ids: Name of each clip, length N.
        labels: Class of each clip.
        groups: Recording each clip was cut from, None where unknown.
        extra: Further manifest columns of each clip.
        order: The caller's number of each clip.
    """

    ids: list[str]
    labels: list[str]
    groups: list[str | None]
    extra: list[Mapping[str, str]]
    order: list[int]

    @classmethod
    def of(
        cls,
        clip_ids: Sequence[str],
        labels: Sequence[str],
        groups: Sequence[str | None],
        extra: Sequence[Mapping[str, str]],
    ) -> Clips:
        """Return clips from the caller's sequences.

        Raises:
            UsageError: If there are fewer than two classes.
            ValueError: If the sequences differ in length or a name occurs twice.
        """
        if not len(clip_ids) == len(labels) == len(groups) == len(extra):
            raise ValueError(
                f"got {len(clip_ids)} clip ids, {len(labels)} labels, {len(groups)} groups, columns of {len(extra)} "
                "clips: expected as many"
            )
        if len(set(clip_ids)) != len(clip_ids):
            raise ValueError(f"clip id '{Counter(clip_ids).most_common(1)[0][0]}' occurs twice: expected each once")
        order = sorted(range(len(clip_ids)), key=lambda i: clip_ids[i])
        if len(names := sorted(set(map(str, labels)))) < 2:
            got = f"one class, '{names[0]}'" if names else "no clips"
            raise UsageError(f"got {got}: expected clips of at least two classes to tell apart")
        return cls(
            ids=[clip_ids[i] for i in order],
            labels=[str(labels[i]) for i in order],
            groups=[groups[i] for i in order],
            extra=[extra[i] for i in order],
            order=order,
        )

    @property
    def units(self) -> list[str]:
        """The unit of each clip, which stays together: its group, or the clip itself if its group is unknown."""
        return units_of(self.ids, self.groups)


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The decision of a rule: the test clips, and the other clips in use.

    ``val`` are those of the other clips that are for validation, if the rule decides that too.
    """

    test: set[int]
    rest: set[int]
    val: set[int] | None = None
    notes: list[str] = field(default_factory=list)


def divide(rule: str, clips: Clips, sides: Sides, seed: int) -> Split:
    """Return the split in the caller's numbering, after choosing validation clips from the rest if none are given.

    Raises:
        UsageError: If a side would be empty.
    """
    rng = np.random.default_rng(seed)
    val = carve(clips.labels, clips.units, sides.rest, rng, spare=1) if sides.val is None else sides.val
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


# --- the greedy choice ---


def carve(
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


def _remarks(clips: Clips, parts: dict[str, set[int]]) -> list[str]:
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
