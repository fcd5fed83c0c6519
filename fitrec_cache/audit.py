"""Does a split leak? Finds groups on both sides, and near-duplicates across sides, from cached embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.auditing.audit_files import describe_pair, refuse_foreign, write_findings, write_manifest
from fitrec_cache.auditing.leaks import SIDE_NAMES, pairs_across, side_of, verdict
from fitrec_cache.auditing.near_duplicates import NearDuplicates, clusters, find_near_duplicates
from fitrec_cache.cache import Cache, pick_features
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain, check_ending, write_json
from fitrec_cache.dataset.clips import columns
from fitrec_cache.dataset.find_clips import choose_classes
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.dataset.splits import Split, known_groups
from fitrec_cache.errors import StoreError, UsageError, unknown_name
from fitrec_cache.features import clips_in, stored_embeddings
from fitrec_cache.settings.poses import sees_poses
from fitrec_cache.settings.variants import PRESETS
from fitrec_cache.storage.store import Store
from fitrec_cache.wording import command, plural, some

_LISTED = 20  # number of pairs in the report; pairs.csv contains all


@dataclass(frozen=True, kw_only=True)
class AuditReport(Plain):
    """The result of :func:`audit`.

    Attributes:
        split: The rule that was audited.
        seed: Its seed.
        backbone: The backbone whose embeddings were compared.
        clips: Number of clips.
        leaks: Whether any of the splits leaks.
        folds: One entry per split that the rule makes: ``fold``, ``n_train``, ``n_val``, ``n_test``, ``leaks``,
            ``share_group`` (test clips), ``groups_on_both_sides``, ``near_duplicate`` (test clips), ``pairs``
            (near-duplicate pairs by sides) and ``text``.
        threshold: Least cosine of a near-duplicate.
        threshold_chosen: Whether the caller chose it.
        halves_found: Share of clips whose own two halves are near-duplicates; see
            :class:`fitrec_cache.auditing.near_duplicates.NearDuplicates`.
        strangers_found: Share of clips with a near-duplicate of another class.
        pairs: Number of near-duplicate pairs, regardless of sides.
        pairs_across_labels: Number of pairs with two classes: mislabelled, or the same room and person.
        same_group: Comparison with the known groups: number of ``pairs`` within a group, how many of these were
            ``found``, ``recall``, and ``precision``, the share within a group of the found pairs of known groups.
        clusters: Number of clusters of two or more clips, formed by near-duplicates and groups.
        clustered: Number of clips in these clusters.
        largest_cluster: Number of clips in the largest one.
        examples: The most similar pairs between training and test, at most 20.
        files: The files that were written.
        notes: Notes for the user.
    """

    split: str
    seed: int
    backbone: str
    clips: int
    leaks: bool
    folds: tuple[dict[str, Any], ...]
    threshold: float
    threshold_chosen: bool
    halves_found: float | None
    strangers_found: float | None
    pairs: int
    pairs_across_labels: int
    same_group: dict[str, Any]
    clusters: int
    clustered: int
    largest_cluster: int
    examples: tuple[dict[str, Any], ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]


@plain_arguments
def audit(
    *,
    cache: Path,
    split: str = "auto",
    backbone: str | None = None,
    preset: str | None = None,
    classes: str | None = None,
    seed: int = 0,
    threshold: float | None = None,
    out: Path | None = None,
    manifest: Path | None = None,
    progress: bool = False,
) -> AuditReport:
    """Find out whether a split leaks from training into test.

    Args:
        cache: Cache folder.
        split: A rule as for ``train-head``.
        backbone: The backbone whose cached embeddings are compared, which does not see poses: these are alike in
            different recordings of an exercise. None for the one with the most clips.
        preset: ``native``, ``grid``, ``paper`` or ``table1``, if the cache has several.
        classes: Use only some of the cached classes; see :func:`fitrec_cache.dataset.find_clips.find_clips`.
        seed: Seed of the rule.
        threshold: Least cosine of a near-duplicate; None to derive it from the data as described in
            :mod:`fitrec_cache.auditing.near_duplicates`.
        out: Folder for ``audit.json``, ``pairs.csv`` (every near-duplicate pair) and ``pairs.png`` (the most similar
            pairs between training and test); files of an earlier audit are replaced.
        manifest: CSV file to write, which must not exist: the clips with proposed groups. Near-duplicates, and clips
            of one known group, get the same group.
        progress: Show progress bars on standard error.

    Returns:
        The findings.

    Raises:
        UsageError: If the clips cannot be split in this way, the backbone is not cached or sees poses, a class is
            unknown, or an existing file would have to be replaced.
        StoreError: If the cache cannot be read or a file cannot be written.
    """
    if manifest is not None:
        check_ending(manifest, "--manifest", ".csv")
        if manifest.exists():
            raise UsageError(f"--manifest {manifest} exists: choose another name, or remove it")
    if out is not None:
        refuse_foreign(out)
        if manifest is not None and manifest.resolve() == (out / "pairs.csv").resolve():
            raise UsageError(f"--manifest {manifest} is where --out writes the pairs: choose another name")
    opened = Cache(cache)
    store, chosen = _pick(opened, backbone, preset)
    clips, notes = clips_in(opened, [store], f"features of {store.identity['backbone']}")
    notes += chosen
    if classes is not None:
        wanted, remarks = choose_classes((c.label for c in clips), classes)
        clips, notes = [c for c in clips if c.label in wanted], [*notes, *remarks]
    labels, groups = [c.label for c in clips], [c.group for c in clips]
    made = make_folds(split, **columns(clips), seed=seed)
    sides = [fold.split for fold in made]
    embeddings = stored_embeddings(store, clips, progress=progress)
    found = find_near_duplicates(embeddings, labels=labels, groups=groups, threshold=threshold, progress=progress)
    folds = [_fold(fold.name, fold.split, groups, found) for fold in made]
    across = pairs_across(sides, found, len(clips))
    side = [SIDE_NAMES[k] for k in side_of(sides[0], len(clips))] if len(sides) == 1 else [""] * len(clips)
    cluster = clusters(len(clips), found.pairs, groups)
    sizes = np.bincount(cluster)
    files = [] if out is None else write_findings(out, opened, found, clips, side, across)
    if out is not None and len(across) and not any(f.endswith(".png") for f in files):
        notes.append("no picture: the cache holds no frames of these clips")
    if manifest is not None:
        files.append(str(manifest))
        notes += _about_proposal(groups, cluster)
    report = AuditReport(
        split=sides[0].rule,
        seed=seed,
        backbone=store.identity["backbone"],
        clips=len(clips),
        leaks=any(f["leaks"] for f in folds),
        folds=tuple(folds),
        threshold=found.threshold,
        threshold_chosen=threshold is not None,
        halves_found=found.halves_found,
        strangers_found=found.strangers_found,
        pairs=len(found.pairs),
        pairs_across_labels=sum(labels[a] != labels[b] for a, b in found.pairs.tolist()),
        same_group=_against_groups(found, groups),
        clusters=int((sizes > 1).sum()),
        clustered=int(sizes[sizes > 1].sum()),
        largest_cluster=int(sizes.max()),
        examples=tuple(describe_pair(found, k, clips, side) for k in across[:_LISTED]),
        files=tuple(files),
        notes=tuple(notes),
    )
    if out is not None:
        write_json(out / "audit.json", report.to_dict())
    if manifest is not None:  # written last, because once it exists the same command is refused
        write_manifest(manifest, clips, cluster, known=[c.group for c in opened.clips() if c.group is not None])
    return report


def _about_proposal(groups: Sequence[str | None], cluster: NDArray[np.int64]) -> list[str]:
    """Return notes if the proposed groups merge known ones, or are too few."""
    known: dict[int, set[str]] = {}
    for number, group in zip(cluster.tolist(), groups, strict=True):
        known.setdefault(number, set()).update([] if group is None else [group])
    joined = [sorted(names) for names in known.values() if len(names) > 1]
    notes = []
    if joined:
        notes.append(
            f"the groups proposed join {plural(sum(map(len, joined)), 'group')} that you gave into {len(joined)}, such "
            f"as {some(joined[0])}: look at the pairs (--out) first, and keep yours if these are not copies"
        )
    if len(known) < 3:
        notes.append(f"the groups proposed are {len(known)}, too few to train, validate and test by")
    return notes


def _pick(cache: Cache, backbone: str | None, preset: str | None) -> tuple[Store, list[str]]:
    if backbone is not None:
        store, notes = pick_features(cache, backbone, preset=preset)
        if sees_poses(store.identity):
            raise _only_poses(cache)
        return store, notes
    stores = cache.filled_features()
    if preset is not None:
        stores = [s for s in stores if s.identity["preprocessing"]["preset"] == preset]
    if not stores:
        if preset is not None and preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        raise StoreError(f"{cache.folder} holds no features{f' of preset {preset}' * bool(preset)}: run extract first")
    stores = [s for s in stores if not sees_poses(s.identity)]
    if not stores:
        raise _only_poses(cache)
    return cache.fullest(stores), []


def _only_poses(cache: Cache) -> UsageError:
    return UsageError(
        "poses are alike in different recordings of an exercise, so they do not show near-duplicates: expected "
        f"features of another backbone, such as those that `{command('extract', cache=cache.folder)}` adds"
    )


def _fold(name: str, split: Split, groups: Sequence[str | None], found: NearDuplicates) -> dict[str, Any]:
    said = verdict(split, groups, found)
    side = side_of(split, len(groups))
    kinds = Counter("-".join(SIDE_NAMES[s] for s in sorted(pair)) for pair in side[found.pairs].tolist())
    return {
        "fold": name,
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": said.n_test,
        "leaks": said.leaks,
        "share_group": said.share_group,
        "groups_on_both_sides": len(
            known_groups([*split.train, *split.val], groups) & known_groups(split.test, groups)
        ),
        "near_duplicate": said.near_duplicate,
        "pairs": {kind: kinds[kind] for kind in ("train-test", "val-test", "train-val")},
        "text": said.text,
    }


def _against_groups(found: NearDuplicates, groups: Sequence[str | None]) -> dict[str, Any]:
    sizes = Counter(g for g in groups if g is not None)
    total = sum(n * (n - 1) // 2 for n in sizes.values())
    both = [(groups[a], groups[b]) for a, b in found.pairs.tolist()]
    known = [pair for pair in both if None not in pair]
    hits = sum(a == b for a, b in known)
    return {
        "pairs": total,
        "found": hits,
        "recall": hits / total if total else None,
        "precision": hits / len(known) if known else None,
    }
