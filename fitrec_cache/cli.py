"""The command line: each command calls the library function of the same name; the only place that prints or exits."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fitrec_cache import __version__, texts
from fitrec_cache.common.files import is_folder
from fitrec_cache.errors import FitrecError, UsageError, earlier
from fitrec_cache.settings.variants import VARIANTS
from fitrec_cache.wording import NEEDS_LINUX, visible

if TYPE_CHECKING:
    from fitrec_cache.live.timeline import Moment, Segment
    from fitrec_cache.predict import Prediction

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a model on your own exercise videos, and recognise exercises in new ones. Start with doctor and learn.",
)

#: Exit code of a program that Ctrl-C ended, by the shells' convention.
_CTRL_C = 130

CacheOption = Annotated[Path, typer.Option("--cache", help="Cache folder.")]
ClassesOption = Annotated[
    str | None,
    typer.Option(help="Some of the classes: fitness35, names separated by commas, or a file.", show_default="all"),
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="Folder that a manifest's or list's paths are relative to.", show_default="the one it is in"),
]
FeatureCacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Cache folder that extract made; give this or --features.")
]
FeatureFileOption = Annotated[
    Path | None, typer.Option("--features", help="HDF5 file from pack or elsewhere, instead of --cache.")
]
CachedBackbonesOption = Annotated[
    list[str],
    typer.Option(
        help="Cached features to use; several are concatenated.",
        show_default="the variant's own, or what is cached",
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        help="What tells recordings or people apart: a manifest's column, or folder (those inside class folders).",
        show_default="column group, or file names",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile backbones first (5 to 30 s each), then usually embed faster; for a few hundred clips or more.",
    ),
]
CachedPresetOption = Annotated[
    str | None,
    typer.Option(
        help="Preset of the cached features: native, grid, paper or table1.", show_default="native, or the only one"
    ),
]
RunOption = Annotated[
    Path, typer.Option(help="Folder written by train-head (all its seeds answer together) or by learn.")
]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")]
PresetOption = Annotated[str, typer.Option(help="Backbone input: native, grid, paper or table1.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
EmbeddingDeviceOption = Annotated[str, typer.Option(help="Where frames are embedded: auto, cpu, cuda, cuda:N or mps.")]
MovedWeightsOption = Annotated[
    list[str], typer.Option(help="NAME=WEIGHTS, for weights that have been moved; repeatable.")
]
UnknownBelowOption = Annotated[
    float | None,
    typer.Option(
        help="Answer 'unknown' where no class reaches this probability.", show_default="fitted on validation clips"
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Go on even if weights or versions differ from those of training.")
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Train existing runs again; without it, a folder with runs of other settings is refused.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
JobsOption = Annotated[
    int, typer.Option(help="Heads of several seeds or folds trained at the same time, sharing the cores.")
]


#: Errors caused by a given path, such as a folder that may not be entered, a name that is too long, or a lost disk.
_OF_THE_NAME = frozenset(
    getattr(errno, name) for name in ("EACCES", "EPERM", "ENAMETOOLONG", "ELOOP", "EIO", "EROFS", "ESTALE")
)


#: How the loader of libraries says that it cannot map one into memory.
_NO_ROOM_TO_LOAD = ("failed to map segment", "annot allocate memory")


def main() -> NoReturn:
    """Run the command line; errors become ``Error: ...`` and an exit code: 1 a problem, 2 wrong use, 130 Ctrl-C."""
    if os.name == "nt":
        print(f"Error: {NEEDS_LINUX}", file=sys.stderr)
        sys.exit(2)
    _open_closed()
    try:
        Path.cwd()
    except FileNotFoundError:  # on which libraries fail in ways that hide the cause
        print("Error: the folder you are in has been deleted: change to another", file=sys.stderr)
        sys.exit(2)
    if empty := _empty_argument(sys.argv[1:]):
        print(f"Error: {empty}", file=sys.stderr)
        sys.exit(2)
    # Where HOME is not writable, matplotlib would write a warning on every call.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # so that a name that a terminal cannot show does not abort the work
            stream.reconfigure(errors="backslashreplace")
    # SIGTERM (from a scheduler or `kill`) and a closed terminal act like Ctrl-C: finished work is committed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, _hung_up)
    try:
        app()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == _CTRL_C:  # how typer reports Ctrl-C
            _interrupted()
        _flush()
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (FitrecError, RuntimeError, MemoryError, OSError, ImportError) as error:
        if (said := _in_words(error)) is None:
            raise
        for each in (*earlier(error), said):
            print(f"Error: {visible(each)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    sys.exit(0)


def _empty_argument(words: Sequence[str]) -> str | None:
    """Return what to tell a user about an empty argument, which as a path would mean the folder one is in."""
    for before, word in zip(["", *words], words, strict=False):
        if not word or (word.startswith("--") and word.find("=") == len(word) - 1):
            where = word or (f"what follows {before}" if before.startswith("-") else "an argument")
            return f"{where} is empty: expected a value. Is a variable of the shell not set?"
    return None


def _in_words(error: Exception) -> str | None:
    """Return what to tell a user about an error; None if it is an error of this program, whose traceback is needed."""
    if isinstance(error, FitrecError):
        return str(error)
    if isinstance(error, MemoryError):
        what = f"too little memory{f' ({error})' if str(error) else ''}"
        return (
            f"{what}: close other programs, or ask for less at once (--workers 1, --jobs 1, fewer clips or backbones)"
        )
    if isinstance(error, ImportError) and any(each in str(error) for each in _NO_ROOM_TO_LOAD):
        return f"a library cannot be loaded ({error}): too little memory (ulimit -v), or a folder mounted noexec"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no further thread can be started: allow more processes (ulimit -u), or memory"
    if isinstance(error, OSError) and "temporary directory" in str(error):  # Python's own message
        return "no folder for temporary files can be written: set TMPDIR to one"
    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_THE_NAME:
        return f"{error.filename} cannot be reached: {error.strerror}"
    return None


def _open_closed() -> None:
    """Open any closed one of standard input, output and error; otherwise the next files opened would take its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # child processes inherit it
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _print(*texts: str, sep: str = " ", end: str = "\n", flush: bool = False) -> None:
    """Print texts on standard output; if that cannot be written, exit with the reason."""
    try:
        print(*map(visible, texts), sep=sep, end=end, flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        _unwritten(error)


def _flush() -> None:
    """Flush standard output; if that cannot be written, exit with the reason."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _unwritten(error)


def _lost(error: OSError) -> str:
    return f"standard output cannot be written: {error.strerror}"


def _unwritten(error: OSError) -> NoReturn:
    print(f"Error: {_lost(error)}", file=sys.stderr)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - otherwise Python tries again at exit
    sys.exit(1)


def _interrupted() -> NoReturn:
    goes_on = sys.argv[1:2] in (["extract"], ["train-head"], ["learn"], ["sweep"], ["reproduce"])
    begins = "trains everything again" if "--overwrite" in sys.argv else "continues from there"
    what = f": what was stored is kept, and the same command {begins}" if goes_on else ""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"Interrupted{what}.", file=sys.stderr)
    sys.exit(_CTRL_C)


def _hung_up(*_: object) -> NoReturn:
    """Interrupt only once, although shell and system may both signal: finished work must still be committed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"fitrec-cache {__version__}")
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
            help="Folder of class folders, CSV manifest (path,label[,group,split,start,end]) or UCF101-style list. "
            "Left out: the clips that the cache holds."
        ),
    ] = None,
    *,
    cache: Annotated[Path, typer.Option("--cache", help="Cache folder, made if it is not there.")],
    backbone: Annotated[
        list[str],
        typer.Option(
            help="Any timm model or blazepose_full, NAME or NAME=WEIGHTS (a file, hub or embedded); repeatable."
        ),
    ] = ["tf_efficientnet_lite0"],
    preset: Annotated[
        str,
        typer.Option(
            help="Backbone input. native: its own size and colours, of the whole frame; grid: native, "
            "features of 3x3 cells (9 times the disk); paper: 64x64, enlarged; table1: 64x64."
        ),
    ] = "native",
    classes: ClassesOption = None,
    root: RootOption = None,
    lists: Annotated[
        list[Path], typer.Option("--list", help="UCF101-style list of the clips to take; repeatable.")
    ] = [],
    group_by: GroupByOption = None,
    samples: Annotated[int | None, typer.Option(help="Frames per clip, T.", show_default="20")] = None,
    frame_size: Annotated[
        int | None, typer.Option(help="Largest short side of stored frames in pixels.", show_default="288")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto (bf16 where it is faster, else fp16 on CUDA, fp32 elsewhere), fp32, bf16 or fp16.")
    ] = "auto",
    device: DeviceOption = "auto",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile backbones first (5 to 30 s each), then usually embed faster; a separate set of features.",
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Decoder processes.", show_default="one per core")] = None,
    time_limit: Annotated[
        float, typer.Option(help="Time limit for decoding one clip, in seconds; tried twice.")
    ] = 120.0,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Remove clips that are not among VIDEOS, such as deleted ones; without --erase their data stays "
            "on disk.",
        ),
    ] = False,
    erase: Annotated[
        bool,
        typer.Option(
            "--erase",
            help="With --prune: permanently erase from disk the data of clips removed now or earlier.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn videos into cached frames and features; only new clips are processed.

    Example: fitrec-cache extract UCF-101 --cache cache --backbone resnet50 --backbone tf_efficientnet_b0
    """
    given = _given(locals())
    from fitrec_cache.extract import extract as run

    report = run(**given, progress=not as_json, tell=None if as_json else _note)
    _show(report, as_json, lambda found: texts.extract_text(found, cache))
    if report.failed or report.unread:
        raise typer.Exit(1)


@app.command()
def learn(
    videos: Annotated[
        Path, typer.Argument(help="Folder of class folders, CSV manifest (path,label[,group,split,start,end]) or list.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the cache and the runs, with their reports.")],
    backbone: Annotated[
        list[str],
        typer.Option(help="Any timm model or blazepose_full, NAME or NAME=WEIGHTS; repeatable: the best is chosen."),
    ] = ["tf_efficientnet_lite0"],
    poses: Annotated[
        bool, typer.Option("--poses", help="Add how people hold their bodies (blazepose_full; 9 MB are downloaded).")
    ] = False,
    preset: PresetOption = "native",
    variant: Annotated[
        list[str],
        typer.Option(
            help="Head to choose from; repeatable.", show_default="the LSTM head that goes with a backbone, and mean"
        ),
    ] = [],
    classes: ClassesOption = None,
    root: RootOption = None,
    group_by: GroupByOption = None,
    split: Annotated[
        str, typer.Option(help="auto, group, random, official1|2|3, list:TRAIN,TEST or manifest.")
    ] = "auto",
    seed: Annotated[list[int], typer.Option(help="Seed of training; repeatable: they answer together.")] = [0, 1, 2],
    epochs: Annotated[int | None, typer.Option(help="Exactly this many.", show_default="the recipe's")] = None,
    device: EmbeddingDeviceOption = "auto",
    compile: CompileOption = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a recogniser in one call: extract, train two kinds of heads, choose one, train it on all clips, report.

    Example: fitrec-cache learn VIDEOS --out exercises
    """
    given = _given(locals())
    from fitrec_cache.learn import learn as run

    report = run(**given, progress=not as_json, tell=None if as_json else _note)
    _show(report, as_json, texts.learn_text)
    if report.extracted.failed or report.extracted.unread:
        raise typer.Exit(1)


@app.command(name="train-head")
def train_head(
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder; several seeds or folds get one each in it. Finished runs of the same settings are kept."
        ),
    ],
    cache: FeatureCacheOption = None,
    features: FeatureFileOption = None,
    variant: Annotated[str, typer.Option(help=", ".join(VARIANTS) + ".")] = "resnet50-lstm-attention",
    backbone: CachedBackbonesOption = [],
    preset: CachedPresetOption = None,
    classes: ClassesOption = None,
    split: Annotated[
        str,
        typer.Option(
            help="auto (group if any is known, else random), group, random, official1|2|3, list:TRAIN,TEST, "
            "manifest, kfold:K, folds:COLUMN, leave-one:COLUMN."
        ),
    ] = "auto",
    seed: Annotated[list[int], typer.Option(help="Seed of split, initial values and batches; repeatable.")] = [0],
    split_seed: Annotated[
        int | None,
        typer.Option(
            help="One split for all seeds: what they answer together is tested too.", show_default="each its own"
        ),
    ] = None,
    attention: Annotated[
        str | None, typer.Option(help="additive (the paper's Eq. 9), dot or none.", show_default="the variant's")
    ] = None,
    recipe: Annotated[str, typer.Option(help="native, or paper: how the head is trained.")] = "native",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs; with keep=best, as in recipe paper, at most that.", show_default="the recipe's"
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many epochs without a lower validation loss; recipe native never does.",
            show_default="the recipe's",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Adam's learning rate; with recipe native the first and highest, which falls to zero.",
            show_default="the recipe's",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips per step.", show_default="the recipe's")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="Another recipe setting, NAME=VALUE such as dropout=0.5; repeatable.")
    ] = [],
    unknown: Annotated[
        list[str], typer.Option(help="Class to withhold from the head, for testing the answer 'unknown'; repeatable.")
    ] = [],
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of known clips that may be answered 'unknown'.")
    ] = 0.05,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps; the CPU gives the same bits for a seed and number of threads."
        ),
    ] = "cpu",
    final: Annotated[
        bool, typer.Option("--final", help="After the test train once more on all clips, for predict and watch.")
    ] = False,
    overwrite: OverwriteOption = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train only the head on cached features; one run per seed.

    Example: fitrec-cache train-head --cache cache --variant mean --out runs/mean --seed 0 --seed 1
    """
    given = _given(locals())
    from fitrec_cache.train import train_head as run

    report = run(**given, progress=not as_json, tell=None if as_json else _note)
    _show(report, as_json, texts.train_text)


@app.command()
def sweep(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the search; an earlier search in it is resumed.")],
    cache: FeatureCacheOption = None,
    features: FeatureFileOption = None,
    variant: Annotated[str, typer.Option(help="A variant that learns from features.")] = "resnet50-lstm-attention",
    backbone: CachedBackbonesOption = [],
    preset: CachedPresetOption = None,
    classes: ClassesOption = None,
    split: Annotated[list[str], typer.Option(help="Split rule whose validation side counts; repeatable.")] = ["auto"],
    seed: Annotated[list[int], typer.Option(help="Seed of the splits; repeatable.")] = [0],
    trials: Annotated[int, typer.Option(help="Total number of trials, including those of earlier calls.")] = 60,
    finalists: Annotated[int, typer.Option(help="How many of the best trials to train again with other seeds.")] = 5,
    epochs: Annotated[
        int, typer.Option(help="Epochs per trial; the recipe native, compared with them, keeps its own number.")
    ] = 40,
    as_json: JsonOption = False,
) -> None:
    """Search for a recipe on validation sides only.

    Example: fitrec-cache sweep --cache cache --variant resnet50-lstm-attention --out sweep --trials 100
    """
    given = _given(locals())
    from fitrec_cache.sweep import sweep as run

    report = run(**given, progress=not as_json, tell=None if as_json else _note)
    _show(report, as_json, texts.sweep_text)


@app.command()
def predict(
    videos: Annotated[
        list[Path], typer.Argument(help="Video files, folders of them, or parts of files: FILE#t=START,END.")
    ],
    *,
    run: RunOption,
    backbone: MovedWeightsOption = [],
    picture: Annotated[Path | None, typer.Option(help="PNG of the sampled frames with their attention.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV of the answers, with the probability of each class.")] = None,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="Folders, or a manifest as VIDEOS, give the classes: say how many answers are right."
        ),
    ] = False,
    top: Annotated[
        int | None, typer.Option(help="Number of labels to show.", show_default="5 for one video, 1 for several")
    ] = None,
    unknown_below: UnknownBelowOption = None,
    device: DeviceOption = "auto",
    time_limit: Annotated[
        float, typer.Option(help="Time limit for decoding one video, in seconds; tried twice.")
    ] = 120.0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recognise the exercise in videos with a trained head.

    Example: fitrec-cache predict --run runs/mean squat.mp4 --picture squat.png
    """
    given = _given(locals())
    brief = top is None and (len(videos) > 1 or is_folder(videos[0]) or videos[0].suffix.lower() == ".csv")
    from fitrec_cache.predict import predict as call

    found: list[Prediction] = []
    try:
        found = call(
            **given,
            tell=found.append if as_json else lambda p: _print(texts.predict_text(p, brief=brief), flush=True),
            note=None if as_json else _note,
        )
    finally:  # also if a table could not be written: the answers so far are printed
        if as_json and found:
            _print(json.dumps([p.to_dict() for p in found], indent=1, allow_nan=False))
    if not as_json:
        written = texts.labelled_text(found) if labelled else "", texts.predict_files_text(found, picture, table)
        _print(*filter(None, written), sep="\n", end="\n" * any(written))
    if any(p.reason for p in found):
        raise typer.Exit(1)


@app.command()
def watch(
    source: Annotated[
        str,
        typer.Argument(
            help="Video file of any length, - (standard input), camera, camera:1, or an address such as rtsp://..."
        ),
    ],
    *,
    run: RunOption,
    seconds: Annotated[
        float | None, typer.Option(help="Length of a window.", show_default="that of the clips trained on")
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next.", show_default="about half of --seconds")
    ] = None,
    smooth: Annotated[
        int, typer.Option(help="Average each answer over this many windows (an odd number): fewer stray answers.")
    ] = 1,
    backbone: MovedWeightsOption = [],
    unknown_below: UnknownBelowOption = None,
    table: Annotated[Path | None, typer.Option(help="CSV of the segments.")] = None,
    subtitles: Annotated[Path | None, typer.Option(help="The segments as .srt, for a video player.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of the probabilities over time.")] = None,
    format: Annotated[str | None, typer.Option(help="FFmpeg's input format of a device, such as x11grab.")] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            help="Skip windows when answers cannot keep up; --no-live answers all.",
            show_default="on for devices, rtsp, rtp, rtmp, udp, tcp, srt, and http without an end",
        ),
    ] = None,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Open a camera or live stream again when it ends or fails.")
    ] = False,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per window, as soon as it is answered.")
    ] = False,
) -> None:
    """Recognise what is done when, in a long video or live; Ctrl-C ends it and keeps what was answered.

    Example: fitrec-cache watch training.mp4 --run runs/lstm --picture timeline.png
    """
    given = _given(locals())
    from fitrec_cache.watch import watch as call

    def tell(moment: Moment, ended: Segment | None) -> None:
        if as_json:
            _print(json.dumps(moment.to_dict()), flush=True)
        elif ended is not None:
            _print(texts.segment_text(ended), flush=True)

    report = call(**given, progress=not as_json, tell=tell, lost=_opens_again)
    if not as_json:
        _print(texts.watch_text(report))
    elif notes := texts.watch_notes(report):  # not contained in the lines of the windows
        print(visible(notes), file=sys.stderr)
    if failed := "; ".join(filter(None, [report.error, report.unwritten])):
        raise FitrecError(failed)


@app.command()
def export(
    *,
    run: RunOption,
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier export is replaced.")],
    backbone: MovedWeightsOption = [],
    force: Annotated[
        bool, typer.Option("--force", help="Go on where weights here differ from those of training.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained head and its backbone as ONNX files, for phones, browsers and other programs.

    Example: fitrec-cache export --run runs/lstm --out recogniser
    """
    given = _given(locals())
    from fitrec_cache.export import export as call

    report = call(**given)
    _show(report, as_json, texts.export_text)


@app.command()
def info(
    *,
    cache: CacheOption,
    clips: Annotated[bool, typer.Option("--clips", help="List every clip, with what decoding found.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a cache holds.

    Example: fitrec-cache info --cache cache
    """
    given = _given(locals())
    from fitrec_cache.info import info as call

    report = call(**given)
    _show(report, as_json, texts.info_text)


@app.command()
def pack(
    *,
    cache: CacheOption,
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    backbone: Annotated[
        list[str],
        typer.Option(help="Cached features; several are concatenated.", show_default="the only one cached"),
    ] = [],
    preset: CachedPresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the features of all clips to one HDF5 file, for sharing.

    Example: fitrec-cache pack --cache cache --backbone resnet50 --out resnet50.h5
    """
    given = _given(locals())
    from fitrec_cache.pack import pack as call

    report = call(**given, progress=not as_json)
    _show(report, as_json, texts.pack_text)


@app.command()
def check(
    *,
    cache: CacheOption,
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged files aside (never deleted).")] = False,
    recompute: Annotated[int, typer.Option(help="Embed this many random clips again and compare.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed for choosing the clips of --recompute.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Verify every file of a cache by its checksum.

    Example: fitrec-cache check --cache cache --repair
    """
    given = _given(locals())
    from fitrec_cache.check import check as call

    report = call(**given, progress=not as_json)
    _show(report, as_json, texts.check_text)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def doctor(
    video: Annotated[
        Path | None,
        typer.Argument(help="One of your video files, to test whether it can be decoded and how long that takes."),
    ] = None,
    *,
    backbone: Annotated[
        str, typer.Option(help="Any timm model or blazepose_full, NAME or NAME=WEIGHTS (a file, hub or embedded).")
    ] = "tf_efficientnet_lite0",
    preset: PresetOption = "native",
    device: DeviceOption = "auto",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Cache folder to look into; it need not be there yet.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether extract works here, what is missing, and how long it will take. Exit code 1 if something is missing.

    Example: fitrec-cache doctor squat.mp4
    """
    given = _given(locals())
    from fitrec_cache.doctor import doctor as call

    report = call(**given)
    _show(report, as_json, texts.doctor_text)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def params(
    *,
    classes: Annotated[int, typer.Option(help="How many classes to count for.")] = 35,
    as_json: JsonOption = False,
) -> None:
    """Count parameters beside the paper's Table I.

    Example: fitrec-cache params
    """
    given = _given(locals())
    from fitrec_cache.params import params as call

    report = call(**given)
    _show(report, as_json, texts.params_text)


@app.command()
def audit(
    *,
    cache: CacheOption,
    split: Annotated[str, typer.Option(help="A rule as for train-head.")] = "auto",
    backbone: Annotated[
        str | None, typer.Option(help="Cached embeddings to compare.", show_default="those that cover the most clips")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset of the cached embeddings: native, grid, paper or table1.",
            show_default="native with --backbone",
        ),
    ] = None,
    classes: ClassesOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Lowest cosine similarity that counts as a near-duplicate.", show_default="taken from the data"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pairs (a table, a picture) and the figures.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV to write: the clips with proposed groups.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a split leaks: groups and near-duplicates on both sides. Exit code 1 if it does or may.

    Example: fitrec-cache audit --cache cache --split random --out audit
    """
    given = _given(locals())
    from fitrec_cache.audit import audit as call

    report = call(**given, progress=not as_json)
    _show(report, as_json, lambda found: texts.audit_text(found, cache, manifest))
    if report.leaks:
        raise typer.Exit(1)


@app.command()
def compare(
    runs: RunsArgument,
    *,
    out: Annotated[Path | None, typer.Option(help="File to write, .md or .csv.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of several models is better, and whether the test clips suffice to say so.

    Example: fitrec-cache compare runs/mean runs/resnet50
    """
    given = _given(locals())
    from fitrec_cache.compare import compare as call

    report = call(**given)
    _show(report, as_json, texts.compare_text)


@app.command()
def report(
    runs: RunsArgument,
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write; an earlier report is replaced.")],
    cache: Annotated[Path | None, typer.Option(help="Cache of these runs, for frames and audit.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML file about trained runs; it opens without network.

    Example: fitrec-cache report runs/resnet50 runs/mean --out report.html --cache cache
    """
    given = _given(locals())
    from fitrec_cache.report import report as call

    found = call(**given, progress=not as_json)
    _show(found, as_json, texts.page_text)


@app.command()
def reproduce(
    videos: Annotated[Path, typer.Argument(help="Folder of class folders, UCF101-style list or manifest.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the cache, the runs, reproduce.json and report.html.")],
    backbone: Annotated[
        list[str], typer.Option(help="Three, NAME or NAME=WEIGHTS: for the ResNet50, EfficientNet and ViT model.")
    ] = ["resnet50", "tf_efficientnet_b0", "vit_base_patch32_224"],
    classes: ClassesOption = None,
    root: RootOption = None,
    split: Annotated[
        list[str], typer.Option(help="Split rule; repeatable. For UCF101 also official1, official2, official3.")
    ] = ["random", "group"],
    seed: Annotated[list[int], typer.Option(help="Seed; repeatable.")] = [0, 1, 2],
    preset: Annotated[list[str], typer.Option(help="paper, native or grid; repeatable.")] = ["paper", "native"],
    frames: Annotated[bool, typer.Option("--frames", help="Train lrcn and convlstm too; slow without a GPU.")] = False,
    overwrite: OverwriteOption = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs; a maximum with recipe paper, which goes with preset paper and --frames.",
            show_default="each recipe's",
        ),
    ] = None,
    device: EmbeddingDeviceOption = "auto",
    compile: CompileOption = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Do what the paper did in one call: features, its three models on them and `mean`, splits, seeds, tables, report.

    Example: fitrec-cache reproduce UCF-101 --classes fitness35 --split random --split official1 --out reproduced
    """
    given = _given(locals())
    from fitrec_cache.reproduce import reproduce as run

    report = run(**given, progress=not as_json, tell=None if as_json else _note)
    _show(report, as_json, texts.reproduce_text)
    if report.failed:
        raise typer.Exit(1)


#: The commands under the headings of ``--help``, those that one needs first above.
_COMMANDS = {
    "The whole job": ("doctor", "learn", "predict", "watch", "report", "export"),
    "Step by step": ("extract", "train-head", "compare", "audit", "sweep"),
    "The cache": ("info", "check", "pack"),
    "The paper": ("params", "reproduce"),
}


def _sort_commands() -> None:
    """Give each command its place and, where rich is installed, its heading."""
    places = [(name, heading) for heading, names in _COMMANDS.items() for name in names]
    names = [name for name, _ in places]
    for command in app.registered_commands:
        assert command.callback is not None
        command.name = command.name or command.callback.__name__
        command.rich_help_panel = dict(places)[command.name]
    app.registered_commands.sort(key=lambda command: names.index(str(command.name)))


_sort_commands()


def _opens_again(reason: str) -> None:
    """Say on standard error, above the progress bar, why a source is opened again."""
    from fitrec_cache.common.progress import print_above

    with contextlib.suppress(OSError):
        print_above(visible(f"{reason}: opening it again"), file=sys.stderr)


def _note(text: str) -> None:
    """Print a note above any progress bars."""
    from fitrec_cache.common.progress import print_above

    try:
        print_above(visible(f"note: {text}"))
    except OSError as error:  # the pipe is closed or the disk is full: no reason to stop the work
        if not isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError):
                print(f"note: {_lost(error)}", file=sys.stderr)
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open until exit


def _show(report: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    _print(json.dumps(report.to_dict(), indent=1, allow_nan=False) if as_json else text(report))


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a command's arguments for its library function, which has parameters of the same names and defaults."""
    return {name: value for name, value in arguments.items() if name != "as_json"}
