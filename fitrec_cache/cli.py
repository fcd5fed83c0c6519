"""The command line: each command calls the library function of the same name; the only place that prints or exits."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fitrec_cache import __version__
from fitrec_cache.errors import FitrecError, UsageError
from fitrec_cache.variants import VARIANTS

if TYPE_CHECKING:
    from fitrec_cache.audit import AuditReport
    from fitrec_cache.compare import CompareReport
    from fitrec_cache.extract import ExtractReport
    from fitrec_cache.info import InfoReport
    from fitrec_cache.predict import Prediction
    from fitrec_cache.reproduce import ReproduceReport
    from fitrec_cache.results import TrainReport

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Decode once, embed once, then train exercise-recognition heads in seconds.",
)

#: Exit code of a program that Ctrl-C ended, by the shells' convention.
_CTRL_C = 130

CacheOption = Annotated[Path, typer.Option("--cache", help="Cache folder.")]
ClassesOption = Annotated[str | None, typer.Option(help="fitness35, names separated by commas, or a file of names.")]
RootOption = Annotated[Path | None, typer.Option(help="Folder that a manifest's or list's paths are relative to.")]
FeatureCacheOption = Annotated[Path | None, typer.Option("--cache", help="Cache folder that extract made.")]
FeatureFileOption = Annotated[Path | None, typer.Option("--features", help="HDF5 file from pack, or made elsewhere.")]
CachedBackbonesOption = Annotated[
    list[str], typer.Option(help="Cached features to use; several are put side by side.  [default: the variant's]")
]
CachedPresetOption = Annotated[
    str | None, typer.Option(help="native, grid, paper or table1, where the cache holds several.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
JobsOption = Annotated[
    int, typer.Option(help="Heads of several seeds or folds trained at the same time, sharing the cores.")
]


def main() -> NoReturn:
    """Run the command line; errors become ``Error: ...`` and an exit code: 1 a problem, 2 wrong use, 130 Ctrl-C."""
    # A scheduler's or `kill`'s polite stop is a Ctrl-C: what is finished is committed first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FitrecError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == _CTRL_C:  # typer's way
            _interrupted()
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)


def _interrupted() -> NoReturn:
    print("Interrupted: what was finished is stored; run the same command again to go on.", file=sys.stderr)
    sys.exit(_CTRL_C)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fitrec-cache {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def extract(
    videos: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of class folders, CSV manifest (path,label[,group,split]) or UCF101-style list. "
            "Left out: the clips that the cache holds."
        ),
    ] = None,
    *,
    cache: Annotated[Path, typer.Option("--cache", help="Cache folder, made if it is not there.")],
    backbone: Annotated[
        list[str], typer.Option(help="Any timm model, NAME or NAME=WEIGHTS (a file, hub or embedded); repeatable.")
    ] = ["tf_efficientnet_lite0"],  # noqa: B006 - typer copies it
    preset: Annotated[str, typer.Option(help="native, grid, paper or table1.")] = "native",
    classes: ClassesOption = None,
    root: RootOption = None,
    lists: Annotated[
        list[Path], typer.Option("--list", help="UCF101-style list of the clips to take; repeatable.")
    ] = [],  # noqa: B006
    samples: Annotated[int | None, typer.Option(help="Frames per clip, T.  [default: 20]")] = None,
    frame_size: Annotated[
        int | None, typer.Option(help="Largest short side of stored frames in pixels.  [default: 288]")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile backbones first, for many clips; kept apart.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Decoder processes.  [default: one a core]")] = None,
    clip_seconds: Annotated[float, typer.Option(help="Time limit for decoding one clip, in seconds.")] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Decode each clip once, embed its frames once with every backbone, keep both.

    Example: fitrec-cache extract UCF-101 --cache cache --backbone resnet50 --backbone tf_efficientnet_b0
    """
    from fitrec_cache.extract import extract as run

    report = run(
        videos,
        cache=cache,
        backbone=backbone,
        preset=preset,
        classes=classes,
        root=root,
        lists=lists,
        samples=samples,
        frame_size=frame_size,
        precision=precision,
        device=device,
        compile=compile,
        workers=workers,
        clip_seconds=clip_seconds,
        progress=not as_json,
    )
    _show(report.to_dict(), as_json, lambda: _extract_text(report, cache))
    if report.failed:
        raise typer.Exit(1)


@app.command(name="train-head")
def train_head(
    *,
    out: Annotated[Path, typer.Option(help="Run folder; with several seeds it holds one a seed.")],
    cache: FeatureCacheOption = None,
    features: FeatureFileOption = None,
    variant: Annotated[str, typer.Option(help=", ".join(VARIANTS) + ".")] = "resnet50-lstm-attention",
    backbone: CachedBackbonesOption = [],  # noqa: B006
    preset: CachedPresetOption = None,
    split: Annotated[
        str,
        typer.Option(
            help="auto (group where groups are known), group, random, official1|2|3, list:TRAIN,TEST, manifest, "
            "kfold:K, leave-one:COLUMN."
        ),
    ] = "auto",
    seed: Annotated[list[int], typer.Option(help="Seed of split, initial values and batches; repeatable.")] = [0],  # noqa: B006
    attention: Annotated[
        str | None, typer.Option(help="additive (Eq. 9), dot or none.  [default: the variant's]")
    ] = None,
    recipe: Annotated[str, typer.Option(help="native, or paper: how the head is trained.")] = "native",
    epochs: Annotated[int | None, typer.Option(help="At most this many.  [default: the recipe's]")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after this many epochs without a lower validation loss.  [default: the recipe's]"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.  [default: the recipe's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips per step.  [default: the recipe's]")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="Another recipe setting, NAME=VALUE such as dropout=0.5; repeatable.")
    ] = [],  # noqa: B006
    unknown: Annotated[
        list[str], typer.Option(help="Class kept from all sides, to test the answer 'unknown' on; repeatable.")
    ] = [],  # noqa: B006
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of known clips that may be answered 'unknown'.")
    ] = 0.05,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; the CPU gives the same bits for a seed.")
    ] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train only the head on cached features; one run a seed.

    Example: fitrec-cache train-head --cache cache --variant mean --out runs/mean --seed 0 --seed 1
    """
    from fitrec_cache.train import train_head as run

    report = run(
        out=out,
        cache=cache,
        features=features,
        variant=variant,
        backbone=backbone,
        preset=preset,
        split=split,
        seed=seed,
        attention=attention,
        recipe=recipe,
        epochs=epochs,
        patience=patience,
        learning_rate=learning_rate,
        batch_size=batch_size,
        settings=settings,
        unknown=unknown,
        false_alarm_rate=false_alarm_rate,
        device=device,
        overwrite=overwrite,
        jobs=jobs,
        progress=not as_json,
    )
    _show(report.to_dict(), as_json, lambda: _train_text(report))


@app.command()
def sweep(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the search; it goes on where it was.")],
    cache: FeatureCacheOption = None,
    features: FeatureFileOption = None,
    variant: Annotated[str, typer.Option(help="A variant that learns from features.")] = "resnet50-lstm-attention",
    backbone: CachedBackbonesOption = [],  # noqa: B006
    preset: CachedPresetOption = None,
    split: Annotated[list[str], typer.Option(help="Split rule whose validation side counts; repeatable.")] = ["auto"],  # noqa: B006
    seed: Annotated[list[int], typer.Option(help="Seed of the splits; repeatable.")] = [0],  # noqa: B006
    trials: Annotated[int, typer.Option(help="Number of tries in all.")] = 60,
    finalists: Annotated[int, typer.Option(help="Best tries that are trained again with other seeds.")] = 5,
    epochs: Annotated[int, typer.Option(help="Epochs of every try.")] = 40,
    as_json: JsonOption = False,
) -> None:
    """Search for a recipe on validation sides only.

    Example: fitrec-cache sweep --cache cache --variant resnet50-lstm-attention --out sweep --trials 100
    """
    from fitrec_cache.sweep import sweep as run

    report = run(
        out=out,
        cache=cache,
        features=features,
        variant=variant,
        backbone=backbone,
        preset=preset,
        split=split,
        seed=seed,
        trials=trials,
        finalists=finalists,
        epochs=epochs,
        progress=not as_json,
    )

    def text() -> str:
        from fitrec_cache.page.words import plural

        best = report.finalists[0]
        return _lines(
            [f"note: {note}" for note in report.notes],
            f"{report.tries['finished']} tries finished, {report.tries['given_up']} given up early, on the validation "
            f"sides of {plural(len(report.splits), 'split')} ({report.n_val} clips), in {report.seconds:.0f} s",
            f"validation accuracy: {report.start:.1%} with --recipe native, {best['val_accuracy']:.1%} found, the best "
            f"of {report.tries['finished']}; with other seeds {report.start_again:.1%} and "
            f"{best['val_accuracy_again']:.1%}",
            f"this difference is within chance at {report.n_distinct} different clips" if report.within_chance else "",
            report.commands if report.beaten else "no try did better than --recipe native with other seeds: keep it",
        )

    _show(report.to_dict(), as_json, text)


@app.command()
def predict(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    *,
    run: Annotated[Path, typer.Option(help="Run folder that train-head made.")],
    backbone: Annotated[
        list[str], typer.Option(help="NAME=WEIGHTS, where weights are no longer where they were; repeatable.")
    ] = [],  # noqa: B006
    picture: Annotated[Path | None, typer.Option(help="PNG of the sampled frames with their attention.")] = None,
    top: Annotated[int, typer.Option(help="Number of labels to show.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    clip_seconds: Annotated[float, typer.Option(help="Time limit for decoding one video, in seconds.")] = 120.0,
    force: Annotated[bool, typer.Option("--force", help="Go on where the pipeline here differs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Recognise the exercise in videos with a trained head.

    Example: fitrec-cache predict --run runs/mean squat.mp4 --picture squat.png
    """
    from fitrec_cache.predict import predict as call

    found = call(
        videos,
        run=run,
        backbone=backbone,
        picture=picture,
        top=top,
        device=device,
        clip_seconds=clip_seconds,
        force=force,
    )
    _show([p.to_dict() for p in found], as_json, lambda: _predict_text(found, picture))
    if any(p.reason for p in found):
        raise typer.Exit(1)


@app.command()
def info(
    *,
    cache: CacheOption,
    clips: Annotated[bool, typer.Option("--clips", help="List every clip with its decode ledger.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a cache holds.

    Example: fitrec-cache info --cache cache
    """
    from fitrec_cache.info import info as call

    report = call(cache=cache, clips=clips)
    _show(report.to_dict(), as_json, lambda: _info_text(report))


@app.command()
def pack(
    *,
    cache: CacheOption,
    backbone: Annotated[list[str], typer.Option(help="Cached features; several are put side by side.")],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    preset: CachedPresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the features of all clips to one HDF5 file, for sharing.

    Example: fitrec-cache pack --cache cache --backbone resnet50 --out resnet50.h5
    """
    from fitrec_cache.pack import pack as call

    report = call(cache=cache, backbone=backbone, out=out, preset=preset)
    shape = f"{report.clips} clips x {report.frames} frames x {report.dim}"
    _show(report.to_dict(), as_json, lambda: f"{report.out}: {shape}, {_size(report.bytes)}")


@app.command()
def check(
    *,
    cache: CacheOption,
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged files aside (never deleted).")] = False,
    recompute: Annotated[int, typer.Option(help="Embed this many random clips again and compare.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses those clips.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Verify every file of a cache by its checksum.

    Example: fitrec-cache check --cache cache --repair
    """
    from fitrec_cache.check import check as call

    report = call(cache=cache, repair=repair, recompute=recompute, seed=seed)

    def text() -> str:
        lines = [f"{p['path']}: {p['reason']}" for p in report.problems] + [f"note: {n}" for n in report.notes]
        lines.append(f"{report.parts} parts with {report.clips} rows read, {len(report.problems)} problems")
        if report.repaired:
            lines.append(f"{report.repaired} files set aside or rebuilt: run `extract` again to redo their clips")
        elif any("missing: " not in p["reason"] for p in report.problems):
            lines.append("add --repair to set them aside")
        if report.largest_distance is not None:
            lines.append(f"{report.recomputed} made again: largest cosine distance {report.largest_distance:.2e}")
        return "\n".join(lines)

    _show(report.to_dict(), as_json, text)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def params(
    *,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 35,
    as_json: JsonOption = False,
) -> None:
    """Count parameters beside the paper's Table I.

    Example: fitrec-cache params
    """
    from fitrec_cache.params import params as call

    report = call(classes=classes)
    _show(report.to_dict(), as_json, report.render)


@app.command()
def audit(
    *,
    cache: CacheOption,
    split: Annotated[str, typer.Option(help="A rule as for train-head.")] = "auto",
    backbone: Annotated[
        str | None, typer.Option(help="Cached embeddings to compare.  [default: those of the most clips]")
    ] = None,
    preset: CachedPresetOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    threshold: Annotated[
        float | None, typer.Option(help="Least cosine of near-duplicates.  [default: taken from the data]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pairs: a table and a picture.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV to write: the clips with proposed groups.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a split leaks: groups and near-duplicates on both sides. Exit code 1 if it does.

    Example: fitrec-cache audit --cache cache --split random --out audit
    """
    from fitrec_cache.audit import audit as call

    report = call(
        cache=cache,
        split=split,
        backbone=backbone,
        preset=preset,
        seed=seed,
        threshold=threshold,
        out=out,
        manifest=manifest,
    )
    _show(report.to_dict(), as_json, lambda: _audit_text(report))
    if report.leaks:
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
    *,
    out: Annotated[Path | None, typer.Option(help="File to write, .md or .csv.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of several models is better, and whether the test clips suffice to say so.

    Example: fitrec-cache compare runs/mean runs/resnet50
    """
    from fitrec_cache.compare import compare as call

    report = call(runs, out=out)
    _show(report.to_dict(), as_json, lambda: _compare_text(report))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write; an earlier report is replaced.")],
    cache: Annotated[Path | None, typer.Option(help="Cache of these runs, for frames and audit.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML file about trained runs; it opens without network.

    Example: fitrec-cache report runs/resnet50 runs/mean --out report.html --cache cache
    """
    from fitrec_cache.page import report as call

    found = call(runs, out=out, cache=cache)

    def text() -> str:
        from fitrec_cache.page.words import plural

        what = f"{plural(found.models, 'model')}, {plural(found.runs, 'run')}, {_size(found.bytes)}"
        return _lines([f"not shown: {m}" for m in found.missing], f"{found.out}: {what}")

    _show(found.to_dict(), as_json, text)


@app.command()
def reproduce(
    videos: Annotated[Path, typer.Argument(help="Folder of class folders, UCF101-style list or manifest.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the cache, the runs, reproduce.json and report.html.")],
    backbone: Annotated[
        list[str], typer.Option(help="Three, NAME or NAME=WEIGHTS: for the ResNet50, EfficientNet and ViT model.")
    ] = ["resnet50", "tf_efficientnet_b0", "vit_base_patch32_224"],  # noqa: B006
    classes: ClassesOption = None,
    root: RootOption = None,
    split: Annotated[
        list[str], typer.Option(help="Split rule; repeatable. For UCF101 also official1, official2, official3.")
    ] = ["random", "group"],  # noqa: B006
    seed: Annotated[list[int], typer.Option(help="Seed; repeatable.")] = [0, 1, 2],  # noqa: B006
    preset: Annotated[list[str], typer.Option(help="paper, native or grid; repeatable.")] = ["paper", "native"],  # noqa: B006
    frames: Annotated[bool, typer.Option("--frames", help="Train lrcn and convlstm too; slow without a GPU.")] = False,
    epochs: Annotated[int | None, typer.Option(help="At most this many.  [default: each recipe's]")] = None,
    device: Annotated[str, typer.Option(help="Where frames are embedded: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile backbones first, for many clips.")] = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Do what the paper did in one call: features, all variants, splits, seeds, tables and the report.

    Example: fitrec-cache reproduce UCF-101 --classes fitness35 --split random --split official1 --out reproduced
    """
    from fitrec_cache.reproduce import reproduce as run

    report = run(
        videos,
        out=out,
        backbone=backbone,
        classes=classes,
        root=root,
        split=split,
        seed=seed,
        preset=preset,
        frames=frames,
        epochs=epochs,
        device=device,
        compile=compile,
        jobs=jobs,
        progress=not as_json,
    )
    _show(report.to_dict(), as_json, lambda: _reproduce_text(report))
    if report.failed:
        raise typer.Exit(1)


def _show(value: Any, as_json: bool, text: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False) if as_json else text())


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def _stages(stages: Mapping[str, float], bottleneck: str = "") -> str:
    parts = _seconds(stages)
    bottleneck = bottleneck or max(stages, key=lambda k: stages[k], default="").replace("_", " ")
    return f"time went to: {parts}. Bottleneck: {bottleneck}" if parts else ""


def _seconds(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {s:.1f} s" for name, s in spent.items() if s >= 0.05)


def _lines(*groups: Any) -> str:
    return "\n".join(line for group in groups for line in ([group] if isinstance(group, str) else group) if line)


def _extract_text(report: ExtractReport, cache: Path) -> str:
    reasons = [f"failed: {f.clip_id}: {f.reason}" for f in report.failed]
    dims = ", ".join(f"{name} ({dim})" for name, dim in report.backbones.items())
    return _lines(
        [f"note: {n}" for n in report.notes],
        reasons,
        f"{report.clips} clips: {report.done} done, {report.reused} reused, {len(report.failed)} failed, "
        f"in {report.seconds:.1f} s",
        f"features of {dims} in {cache}",
        _stages(report.stages, report.bottleneck),
        f"work of threads and decoders: {beside}" if (beside := _seconds(report.beside)) else "",
    )


def _train_text(report: TrainReport) -> str:
    lines = [f"note: {n}" for n in report.notes]
    for r in report.runs:
        low, high = r.metrics.accuracy_ci95
        fold = f", fold {r.fold}" if r.fold else ""
        lines.append(
            f"{r.variant} on {r.backbone}, split {r.split}{fold}, seed {r.seed}: accuracy {r.metrics.accuracy:.1%} "
            f"({low:.1%} to {high:.1%}, n = {r.n_test}), top-5 {r.metrics.top5_accuracy:.1%}, "
            f"macro F1 {r.metrics.f1_macro:.1%}; {r.epochs} epochs, best {r.best_epoch}, {r.seconds:.1f} s -> {r.out}"
        )
        if "auroc" in r.unknown:
            lines.append(
                f"  unknown classes: {r.unknown['detected']:.1%} of {r.unknown['n']} clips answered 'unknown', "
                f"{r.unknown['false_alarms']:.1%} of known test clips too; AUROC {r.unknown['auroc']:.3f}"
            )
    for p in report.pooled:
        low, high = p["accuracy_ci95"]
        lines.append(
            f"all {p['folds']} folds, seed {p['seed']}: accuracy {p['accuracy']:.1%} ({low:.1%} to {high:.1%}, "
            f"n = {p['n']}), macro F1 {p['f1_macro']:.1%}"
        )
    if len(report.accuracies) > 1:
        figures = report.to_dict()
        lines.append(
            f"mean of {len(report.accuracies)} seeds: accuracy {figures['accuracy_mean']:.1%}, "
            f"standard deviation {figures['accuracy_std']:.1%}"
        )
    if report.ensemble:
        lines.append(f"their mean probabilities: accuracy {report.ensemble['accuracy']:.1%}")
    return _lines(lines, _stages(report.stages))


def _predict_text(found: list[Prediction], picture: Path | None) -> str:
    lines: list[str] = []
    for p in found:
        together = f" (mean of {p.heads} seeds)" if p.heads > 1 else ""
        lines.append(f"{p.path}: {p.reason}" if p.reason else f"{p.path}{together}")
        lines += ["  unknown: no class is probable enough; the nearest are"] * p.unknown
        lines += [f"  {probability:6.1%}  {label}" for label, probability in p.top]
    return _lines(lines, f"picture: {picture}" if picture and any(p.top for p in found) else "")


def _info_text(report: InfoReport) -> str:
    lines = [
        f"{report.cache}: format {report.format_version}, {report.clips} clips in {len(report.classes)} classes, "
        f"{report.groups} groups, {report.failed} failed"
    ]
    for frames in report.frames:
        s = frames["settings"]
        lines.append(
            f"frames    {frames['folder']}: {frames['clips']} clips, {s['samples']} frames each, short side at most "
            f"{s['short_side']} px, {_size(frames['bytes'])} in {frames['parts']} parts"
        )
    for features in report.features:
        s = features["settings"]
        lines.append(
            f"features  {features['folder']}: {features['clips']} clips, {s['backbone']}, preset "
            f"{s['preprocessing']['preset']}, {s['precision']}, {_size(features['bytes'])} in {features['parts']} parts"
        )
    for e in report.history:
        what = f"{e.done} clips in {e.seconds:.0f} s, mostly {e.bottleneck}: {'; '.join(e.backbones)} on {e.device}"
        lines.append(f"extracted {e.ended}: {what}")
    lines += [f"  {label}: {n}" for label, n in report.classes.items()] if not report.clip_list else []
    for clip in report.clip_list:
        ledger = clip["ledger"]
        what = clip["problem"] or ", ".join(f"{k} {v}" for k, v in ledger.items() if v not in (0, False, []))
        lines.append(f"{clip['clip_id']}: {what}")
    return _lines(lines)


def _audit_text(report: AuditReport) -> str:
    trust = "as chosen" if report.threshold_chosen else "taken from the data"
    if report.halves_found is not None:
        trust += f"; {report.halves_found:.0%} of the clips find their own other half at it"
    if report.strangers_found is not None:
        trust += f", {report.strangers_found:.1%} a clip of another class"
    groups, lines = report.same_group, [f"note: {n}" for n in report.notes]
    lines += [
        f"{report.clips} clips by {report.backbone}: {report.pairs} near-duplicate pairs, "
        f"{report.pairs_across_labels} of them of two classes",
        f"near-duplicate: similarity {report.threshold:.3f} or more, {trust}",
    ]
    if groups["pairs"]:
        lines.append(f"{groups['found']} of {groups['pairs']} pairs of one group are near-duplicates")
    lines.append(
        f"near-duplicates and groups make {report.clusters} clusters with {report.clustered} clips, "
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
    return _lines(lines)


def _compare_text(report: CompareReport) -> str:
    from fitrec_cache.compare_tables import tried

    lines = [f"note: {n}" for n in report.notes]
    for m in report.models:
        low, high = m.ci95
        spread = "" if m.sd is None else f", sd {m.sd:.1%} over {len(m.seeds)} seeds"
        span = f"95 % {low:.1%} to {high:.1%}, n = {m.n}"
        lines.append(f"{m.accuracy:6.1%}{spread} ({span})  {m.name}, split {m.split}")
    lines += [pair.text for pair in report.pairs]
    return _lines(lines, tried(report) if report.pairs else "", f"written: {report.out}" if report.out else "")


def _reproduce_text(report: ReproduceReport) -> str:
    wide = max([22, *(len(r.split) for r in report.table2)]) + 2
    head = f"{'split':<{wide}}{'preset':<8}{'model':<29}{'features':<22}{'accuracy':>10}{'sd':>7}{'n':>7}{'paper':>8}"
    lines = [f"note: {n}" for n in report.notes]
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
