"""Export a trained head and its backbones as ONNX files, for phones, browsers and other programs."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache import __version__
from fitrec_cache.backbones.backbone import Backbone, Preprocessing, attend_by_products
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import (
    Plain,
    flush,
    holds_nothing,
    parse_json,
    put_in_place,
    read_file,
    staged,
    write_json,
)
from fitrec_cache.errors import FitrecError, MismatchError, UsageError
from fitrec_cache.pipeline import Pipeline, open_pipelines
from fitrec_cache.runs.ensemble import Ensemble, HeadEnsemble, model_id
from fitrec_cache.runs.run import Run, read_runs
from fitrec_cache.settings.paper import FRAME_SIDE
from fitrec_cache.settings.variants import PIXELS, VARIANTS, HeadConfig

#: Names of the files; a backbone's file has the backbone's name.
HEAD, DESCRIPTION = "head.onnx", "recogniser.json"

#: Version of ``recogniser.json``.
EXPORT_VERSION = 1

#: Probabilities of the exported networks may differ by this much from those computed here.
TOLERANCE = 1e-3

_MOST_BYTES = 2**31 - 2**20  # the greatest size of weights in one ONNX file, with room for its graph
_OPSET = 18


@dataclass(frozen=True, kw_only=True)
class ExportReport(Plain):
    """The result of :func:`export`.

    Attributes:
        out: The folder.
        files: Size in bytes, by file name.
        heads: Number of seeds that answer together.
        difference: Largest difference of a probability between ONNX Runtime and PyTorch, on random frames.
        seconds: Wall time.
        notes: Notes for the user.
    """

    out: Path
    files: dict[str, int]
    heads: int
    difference: float
    seconds: float
    notes: tuple[str, ...]


@plain_arguments
def export(*, run: Path, out: Path, backbone: Sequence[str] = (), force: bool = False) -> ExportReport:
    """Write a trained head and its backbones as ONNX files that need neither this program nor PyTorch.

    There is one file per backbone, from frames to embeddings, and one for the head, from embeddings to probabilities.
    So a live program embeds each frame only once, whatever windows it uses. Several seeds become one head, which
    answers as ``predict`` does. ``recogniser.json`` beside the files says how frames are sampled and resized
    (docs/export.md). Of a head that was trained on features made elsewhere, only the head is written.

    Args:
        run: Run folder made by ``train-head``, as for :func:`fitrec_cache.predict.predict`.
        out: Output folder: a new one, or an earlier export, whose files (those named in its description) are replaced.
        backbone: ``NAME=WEIGHTS`` if the weights have moved since extraction.
        force: Continue although the weights here differ from those the head was trained with.

    Returns:
        The files, and how far their probabilities are from PyTorch's.

    Raises:
        UsageError: If there is no run, or ``out`` contains other files and no earlier export, or a file with a name
            that is to be written.
        MismatchError: If weights differ, or the files do not compute the same as PyTorch.
        StoreError: If the folder cannot be written.
        FitrecError: If a required package is not installed.
    """
    started = time.perf_counter()
    _check_packages()
    earlier = _earlier_files(out)
    runs = read_runs(run)
    # Of features made elsewhere, all that is known is what the head takes.
    from_video = runs[0].run_json["sources"] or backbone
    pipelines = open_pipelines(runs[0], backbone, device="cpu", force=force, exported=True) if from_video else []
    backbones = [p.backbone for p in pipelines if p.backbone is not None]
    names = _file_names(backbones)
    if others := [name for name in (HEAD, *names) if (out / name).exists() and name not in earlier]:
        raise UsageError(
            f"--out {out}: it holds {others[0]}, which no earlier export wrote: choose another folder, or move it"
        )
    head = HeadEnsemble(runs, dtype=torch.float32)
    clip = _clip(backbones, HeadConfig.from_dict(runs[0].run_json["head"]))
    with staged(out, str(out)) as here:
        _write(here, names, backbones, head, clip)
        difference = _compare(here, names, backbones, head, clip)
        write_json(here / DESCRIPTION, _describe(names, pipelines, runs, head.ensemble))
        for old in (DESCRIPTION, *earlier):
            (out / old).unlink(missing_ok=True)
        put_in_place(here, out, [*names, HEAD, DESCRIPTION])
    return ExportReport(
        out=out,
        files={name: (out / name).stat().st_size for name in (*names, HEAD, DESCRIPTION)},
        heads=len(runs),
        difference=difference,
        seconds=time.perf_counter() - started,
        notes=tuple(_rounded(runs[0])),
    )


def _rounded(run: Run) -> list[str]:
    """Return a note if ``predict`` computes features in another precision than the files."""
    identities = [source["identity"] for source in run.run_json["sources"]]
    found = sorted({str(each["precision"]) for each in identities if each.get("precision", "fp32") != "fp32"})
    return [
        f"the head learned from features in {' and '.join(found)}, which `predict` uses too; these files compute in "
        "fp32, so some answers may be others (docs/export.md)"
    ] * bool(found)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise FitrecError(f"export needs {error.name}: pip install onnx onnxruntime onnxscript") from error


def _file_names(backbones: Sequence[Backbone]) -> list[str]:
    """Return the names of the backbones' files, in the order in which the head expects them."""
    names: list[str] = []
    for backbone in backbones:
        name = f"{backbone.name}.onnx"
        names.append(name if name not in names else f"{backbone.name}-{len(names) + 1}.onnx")
    return names


def _earlier_files(out: Path) -> list[str]:
    """Return the network files of an earlier export; refuse a folder with files that is not a complete export."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: expected a new folder")
    if not out.is_dir() or holds_nothing(out):
        return []
    try:
        described = parse_json(read_file(out / DESCRIPTION))
        files = [described["head"]["file"], *(source["file"] for source in described["inputs"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--out {out} is neither empty nor a whole earlier export (one that was killed is none): choose another "
            "folder, or remove it"
        ) from error
    return [name for name in files if isinstance(name, str) and re.fullmatch(r"[^/]+\.onnx", name)]


def _write(
    folder: Path, names: Sequence[str], backbones: Sequence[Backbone], head: HeadEnsemble, clip: NDArray[Any]
) -> None:
    """Write all networks to disk, the backbones under these names."""
    for name, backbone in zip(names, backbones, strict=True):
        _to_onnx(_Portable(backbone), _frames(backbone, 2), folder / name, "frames", ["embeddings"])
    _to_onnx(
        head, torch.from_numpy(np.stack([clip] * 2)), folder / HEAD, "clips", ["probabilities", "attention", "unknown"]
    )
    for name in (*names, HEAD):
        flush(folder / name)


class _Portable(nn.Module):
    """A backbone's network for other runtimes, without what makes it faster in PyTorch only.

    Channels last in memory would be two transpositions of all pixels, and a pooled map that is gathered by computed
    places. Fused attention would be a reshape to a computed shape in each block, which WebNN, for one, refuses.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.network.model.to(memory_format=torch.contiguous_format)
        attend_by_products(self.model)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(backbone.preprocessing, name))
            self.register_buffer(name, values[:, None, None])  # (3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, d)`` of uint8 frames ``(n, 3, h, w)``."""
        y: Tensor = self.model((x.float() / 255 - self.get_buffer("mean")) / self.get_buffer("std"))
        return y


def _to_onnx(module: nn.Module, example: Tensor, path: Path, takes: str, gives: Sequence[str]) -> None:
    """Write a module that takes one tensor with any number of rows."""
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    n_bytes = sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
    if n_bytes > _MOST_BYTES:
        raise UsageError(f"{path.stem} has {n_bytes / 1e9:.1f} GB of weights, one ONNX file holds 2: train on another")
    layer: Any
    for layer in module.modules():
        if getattr(layer, "inplace", False):  # ONNX has no such thing: each write into a view would copy a whole tensor
            layer.inplace = False
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's warnings about its own code
        program: Any = torch.onnx.export(
            module,
            (example,),
            input_names=[takes],
            output_names=list(gives),
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    # The exporter leaves large constants as they are; a runtime wants the weights of an LSTM, say, and not their parts.
    # What would make the file much larger, such as a bias looked up for each pair of places, stays computed.
    fold_constants(program.model, input_size_limit=_MOST_BYTES)
    remove_unused_nodes(program.model)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # removes stack traces, which contain folder names of this machine
    program.save(str(path), external_data=False)


def _frames(backbone: Backbone, count: int) -> Tensor:
    """Return random prepared frames, uint8 ``(count, 3, h, w)``."""
    size = backbone.preprocessing.size
    return torch.from_numpy(np.random.default_rng(count).integers(0, 256, (count, 3, *size), dtype=np.uint8))


def _clip(backbones: Sequence[Backbone], head: HeadConfig) -> NDArray[Any]:
    """Return the head's input for one random clip: float32 ``(T, d)``, or uint8 ``(T, 64, 64, 3)``."""
    if backbones:
        parts = [b.embed_prepared(_frames(b, head.frames)).astype(np.float32) for b in backbones]
        return np.concatenate(parts, axis=1)
    random = np.random.default_rng(head.frames)
    if VARIANTS[head.variant].takes_pixels:
        return random.integers(0, 256, (head.frames, FRAME_SIDE, FRAME_SIDE, 3), dtype=np.uint8)
    return random.standard_normal((head.frames, head.input_dim)).astype(np.float32)


def _compare(
    folder: Path, names: Sequence[str], backbones: Sequence[Backbone], head: HeadEnsemble, clip: NDArray[Any]
) -> float:
    """Return the largest difference between the probabilities of ONNX Runtime and PyTorch on a random clip."""
    with torch.inference_mode():
        expected = head(torch.from_numpy(clip)[None])[0].numpy()
    if backbones:
        parts = [_run(folder / n, _frames(b, len(clip)).numpy())[0] for n, b in zip(names, backbones, strict=True)]
        clip = np.concatenate(parts, axis=1)
    difference = float(np.abs(_run(folder / HEAD, clip[None])[0] - expected).max())
    if not difference <= TOLERANCE:
        raise MismatchError(
            f"what was exported gives other probabilities than PyTorch, by up to {difference:.2g} (at most {TOLERANCE} "
            "is expected): nothing was written. Try other versions of torch and onnxscript"
        )
    return difference


def _run(path: Path, x: NDArray[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: x}))


def _describe(
    names: Sequence[str], pipelines: Sequence[Pipeline], runs: Sequence[Run], ensemble: Ensemble
) -> dict[str, Any]:
    """Return the description that a program needs to use the files."""
    files, inputs = iter(names), []
    for pipeline in pipelines:
        stored = {name: pipeline.frames[name] for name in ("short_side", "geometry", "codec")}
        source: dict[str, Any] = {"file": None, "name": PIXELS, "stored_as": stored}
        if (b := pipeline.backbone) is None:
            source |= {"resize": [_resize((FRAME_SIDE, FRAME_SIDE), "bilinear")]}
        else:
            source |= {"file": next(files), "name": b.name, "resize": _steps(b.preprocessing)}
            source |= {"embedding": b.dim, "weights_sha256": b.weights_sha256}
        inputs.append(source)
    return {
        "export_version": EXPORT_VERSION,
        "labels": runs[0].labels,
        "samples": runs[0].run_json["head"]["frames"],
        "sampling": pipelines[0].frames["sampling"] if pipelines else None,
        "clip_seconds": runs[0].run_json.get("clip_seconds"),
        "inputs": inputs,
        "head": {"file": HEAD, "variant": runs[0].run_json["head"]["variant"], "seeds": len(runs)},
        "model": model_id(runs, ensemble),
        "versions": {"fitrec-cache": __version__, "torch": str(torch.__version__)},
    }


def _steps(p: Preprocessing) -> list[dict[str, Any]]:
    first = [] if p.first_size is None else [_resize(p.first_size, "bilinear")]
    return [*first, _resize(p.size, p.interpolation) | ({"fit": "inside"} if p.sees_poses else {})]


def _resize(size: tuple[int, int], interpolation: str) -> dict[str, Any]:
    return {"height": size[0], "width": size[1], "interpolation": f"{interpolation}, antialiased"}
