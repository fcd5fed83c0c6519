"""Frozen backbones with their own preprocessing: they turn the frames of a clip into embeddings."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data.config import resolve_model_data_config
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from fitrec_cache.backbones.feature_maps import GridMap, LastMap
from fitrec_cache.backbones.folding import FOLDING, fold_norms
from fitrec_cache.backbones.frozen_conv import FrozenConv
from fitrec_cache.backbones.pretrained import BackboneChoice, load_model
from fitrec_cache.backbones.rounding import ROUNDING, round_filters
from fitrec_cache.backbones.weights import weights_digest
from fitrec_cache.common.devices import find_device, first_line, keep_to_cores, room_on
from fitrec_cache.common.precision import computes_in_bf16, fuses_slowly, in_full_float32, is_good_at_fp16, is_slow
from fitrec_cache.errors import UsageError, VideoError, unknown_name
from fitrec_cache.settings.paper import FRAME_SIDE
from fitrec_cache.settings.poses import POSE, POSES
from fitrec_cache.settings.variants import PRESETS
from fitrec_cache.video.resizing import fit_into, resize

#: Value in the identity of features from a compiled network.
COMPILER = "inductor, weights folded in"

#: By class of normalisation: the module that remains when a convolution has absorbed the normalisation.
_REST: dict[type, Callable[[Any], nn.Module]] = {
    nn.BatchNorm2d: lambda _: nn.Identity(),
    BatchNormAct2d: lambda norm: nn.Sequential(norm.drop, norm.act),
}

#: A cache limit that is larger than the number of networks that any process compiles.
_MANY = 1_000_000

#: Up to this many input pixels, attention may store the matrix of all pairs of positions; beyond, it takes gigabytes.
_MOST_PAIRED = 400 * 400

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a stored frame is turned into a backbone's input; every field affects features, so all are in the identity.

    Attributes:
        preset: One of :data:`~fitrec_cache.settings.variants.PRESETS`.
        first_size: Height and width in pixels of a first, lossy resize; None for none.
        size: Height and width of the backbone's input in pixels. The whole frame is resized to it, without cropping;
            for a pose it keeps its proportions and gets black borders.
        interpolation: ``bilinear`` or ``bicubic``, antialiased.
        mean: Subtracted from pixels in [0, 1], per channel.
        std: The divisor after that, per channel.
        output: ``pooled``: the backbone's own pooled vector; ``grid3``: its last feature map, averaged in 3 x 3 cells;
            ``flattened``: that map as it is; :data:`~fitrec_cache.settings.poses.POSE`: a pose, of frames whose
            proportions are kept.
    """

    preset: str
    first_size: tuple[int, int] | None
    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str

    @property
    def sees_poses(self) -> bool:
        """Whether the output is a pose; then a frame is fitted into ``size`` with its proportions, not squashed."""
        return self.output == POSE


class Network(nn.Module):
    """A frozen model with the scaling of pixels before it: uint8 frames ``(T, 3, h, w)`` to ``(T, d)``.

    Args:
        model: The model from timm.
        preprocessing: Gives the mean and standard deviation for scaling pixels.
        dtype: Type for the operations that benefit from it (autocast); the rest is computed in fp32.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.dtype = dtype
        width = preprocessing.size[1]  # one value per number in a row of pixels, in memory order
        self.register_buffer("mean", torch.tensor(preprocessing.mean).repeat(width))  # (3 w,)
        self.register_buffer("std", torch.tensor(preprocessing.std).repeat(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(T, d)`` of uint8 frames ``(T, 3, h, w)``, channels last in memory."""
        rows = x.permute(0, 2, 3, 1).flatten(2)  # (T, h, 3 w): long rows can be vectorised
        rows = rows.float().div_(255).sub_(self.get_buffer("mean")).div_(self.get_buffer("std"))
        x = rows.view(*rows.shape[:2], -1, 3).permute(0, 3, 1, 2)  # channels last in memory
        # Everything in bf16 would be a little faster, but EfficientNet-B0's cosine to fp32 would fall below 0.999.
        with torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            y: Tensor = self.model(x)
        return y


class Backbone:
    """A frozen network that turns the frames of a clip into embeddings; made by :func:`load_backbone`.

    Attributes:
        name: timm's name.
        source: Where the weights came from: ``hub``, ``embedded`` or a path.
        weights_sha256: Digest of the names, shapes and values of all tensors; equal for a file and the hub's copy.
        preprocessing: The preprocessing of frames.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compiled: Whether the network is compiled for the shape of a clip before its first use.
        network: The network that embeds prepared frames, not compiled.
        dim: Length ``d`` of one embedding.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        source: str,
        preprocessing: Preprocessing,
        precision: str,
        device: str,
        compiled: bool = False,
    ) -> None:
        self.name = name
        self.source = source
        self.weights_sha256 = weights_digest(model)
        self.preprocessing = preprocessing
        self.precision = precision
        self.compiled = compiled
        self._device = torch.device(device)
        gpu = self._device.type == "cuda"
        self._copies = torch.cuda.Stream(self._device) if gpu else None  # type: ignore[no-untyped-call]
        self._dtype = PRECISIONS[precision]
        self._folded = False
        if not compiled:  # a compiler folds normalisations itself, and rounds the biases
            frame = torch.rand(1, 3, *preprocessing.size, generator=torch.Generator().manual_seed(0))
            cpu = torch.device("cpu")  # what the caller has set must not decide whether rounding is small enough
            with self._refused_if_foreign(), in_full_float32(cpu):
                self._folded = fold_norms(model, frame, _REST) > 0
        _freeze_convolutions(model)
        _hold_weights(model, self._dtype, biases=compiled)
        exact = any(isinstance(m, FrozenConv) and m.has_wide_bias for m in model.modules())
        self._rounding = f"{ROUNDING}, whose biases stay exact" if exact else ROUNDING
        if fuses_slowly(precision, device) and preprocessing.size[0] * preprocessing.size[1] <= _MOST_PAIRED:
            attend_by_products(model)
        with room_on(self._device, name):
            self.network = Network(model, preprocessing, self._dtype).eval().to(self._device)
        self._forward: Callable[[Tensor], Tensor] = self.network
        with self._refused_if_foreign():
            blank = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
            (found,) = self.embed_prepared(self.prepare(blank))
            if found.ndim != 1:
                raise ValueError(f"it gives {'x'.join(map(str, found.shape))} values per frame, expected a vector")
            self.dim = len(found)
        if compiled:
            self._forward = torch.compile(self.network, dynamic=False)
        self._compiled_for: set[int] = set()

    @contextmanager
    def _refused_if_foreign(self) -> Iterator[None]:
        """Turn the exceptions of a network that does not support a size or feature map into a UsageError."""
        try:
            yield
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            preset, size = self.preprocessing.preset, "x".join(map(str, self.preprocessing.size))
            raise UsageError(
                f"{self.name} does not work with preset {preset} at {size} pixels ({first_line(error)}): choose "
                "another preset or backbone" + ("" if self.on_cpu else ", or --device cpu")
            ) from error

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the processor, and so uses the same cores as decoders."""
        return self._device.type == "cpu"

    @property
    def embeds_each_alone(self) -> bool:
        """Whether an embedding hardly depends on how many frames are embedded with it (docs/design.md).

        A compiled network is made for one number of frames, and a GPU's library may compute another one differently.
        """
        return self._device.type == "cpu" and not self.compiled

    @property
    def is_slow(self) -> bool:
        """Whether its device is slower in its precision than in fp32."""
        return is_slow(self.precision, str(self._device))

    def identity(self) -> dict[str, Any]:
        """Return every property of this backbone that could change an embedding, as plain JSON values."""
        preprocessing = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.preprocessing).items()}
        identity = {
            "backbone": self.name,
            "weights_sha256": self.weights_sha256,
            "preprocessing": preprocessing,
            "precision": self.precision,
        }
        if self._dtype is not torch.float32:
            identity["rounding"] = self._rounding
        if self._folded:
            identity["folded"] = FOLDING
        return identity | ({"compiled": COMPILER} if self.compiled else {})

    def origin(self) -> dict[str, Any]:
        """Return where the weights came from and which libraries and device compute; not part of the identity."""
        source = self.source if self.source in ("hub", "embedded") else str(Path(self.source).resolve())
        return {"weights": source, "device": str(self._device), **library_versions()}

    def prepare(self, frames: Tensor) -> Tensor:
        """Resize the frames of one clip to the backbone's input, and start sending them to its device.

        This may be called from another thread while a clip is being embedded.

        Args:
            frames: uint8 ``(T, 3, H, W)``, RGB.

        Returns:
            uint8 ``(T, 3, h, w)``, on the device if that is a CUDA device, channels last in memory: another layout
            would be compiled again.
        """
        p = self.preprocessing
        if p.first_size is not None:
            frames = resize(frames, p.first_size, "bilinear")
        whole = fit_into(frames, p.size) if p.sees_poses else resize(frames, p.size, p.interpolation)
        frames = whole.contiguous(memory_format=torch.channels_last)
        if self._copies is None:  # on mps only the thread that embeds may use the device
            return frames
        with self._room(len(frames)), torch.cuda.stream(self._copies):
            pinned = torch.empty_like(frames, pin_memory=True)
            np.copyto(pinned.numpy(), frames.numpy())  # PyTorch's copy would start threads for each calling thread
            return pinned.to(self._device, non_blocking=True)

    def compile_for(self, samples: int) -> None:
        """Compile the network for clips of ``samples`` frames, if requested and not yet done; takes seconds, once.

        Raises:
            UsageError: If it cannot be compiled.
        """
        if not self.compiled or samples in self._compiled_for:
            return
        blank = self.prepare(torch.zeros(samples, 3, 32, 32, dtype=torch.uint8))
        try:
            # Given as an option of torch.compile, freezing would not reach its front end, so it is patched here. Each
            # network is then compiled separately; beyond the default limits PyTorch would not compile further ones.
            with (
                inductor.patch(freezing=True),
                dynamo.patch(cache_size_limit=_MANY, accumulated_cache_size_limit=_MANY),
            ):
                self.embed_prepared(blank)
        except RuntimeError as error:
            # the compiler's own error only says that there was an error
            reason = first_line(getattr(error, "inner_exception", None) or error)
            raise UsageError(
                f"{self.name} cannot be compiled here ({reason}): leave --compile out, or set TMPDIR to a folder with "
                "room, from which programs may run"
            ) from error
        self._compiled_for.add(samples)

    def embed(self, frames: Tensor) -> NDArray[np.float16]:
        """Embed the frames of one clip: :meth:`prepare`, :meth:`compile_for`, :meth:`embed_prepared`.

        Args:
            frames: uint8 ``(T, 3, H, W)``, RGB.

        Returns:
            float16 ``(T, d)``.

        Raises:
            VideoError: If an embedding is not finite in float16.
        """
        self.compile_for(len(frames))
        return self.embed_prepared(self.prepare(frames))

    def _room(self, samples: int) -> AbstractContextManager[None]:
        return room_on(self._device, f"{self.name} on clips of {samples} frames")

    @torch.inference_mode()
    def embed_prepared(self, x: Tensor) -> NDArray[np.float16]:
        """Embed one clip prepared by :meth:`prepare`.

        A batch is always exactly one clip, so that an embedding cannot depend on other clips in the batch.

        Args:
            x: uint8 ``(T, 3, h, w)``.

        Returns:
            float16 ``(T, d)``.

        Raises:
            VideoError: If an embedding is not finite in float16.
        """
        with self._room(len(x)), in_full_float32(self._device):
            if self._copies is not None:  # wait for the copy, and keep its memory until it has been used
                here = torch.cuda.current_stream(self._device)
                here.wait_stream(self._copies)
                x.record_stream(here)
            y = self._forward(x.to(self._device))  # (T, d)
            features: NDArray[np.float16] = y.float().cpu().numpy().astype(np.float16)
        if not np.isfinite(features).all():
            raise VideoError(
                f"{self.name} gave embeddings that float16 cannot hold: its weights do not suit preset "
                f"{self.preprocessing.preset} at {self.precision}"
                + (", but may at --precision fp32" if self.precision != "fp32" else "")
            )
        return features


def _hold_weights(model: nn.Module, dtype: torch.dtype, *, biases: bool) -> None:
    """Round the weights of convolutions and matrix products once; autocast would do it less well, and for every clip.

    ``biases``: whether to round the biases of convolutions too.
    """
    if dtype is torch.float32:
        return
    for module in model.modules():
        if type(module) in (FrozenConv, nn.Conv2d):
            module.weight.data = round_filters(module.weight, dtype)  # type: ignore[arg-type]
        # The inputs of linear layers are mostly centred, so there is no accumulated error to cancel.
        if type(module) in (nn.Conv2d, nn.Linear) or (biases and type(module) is FrozenConv):
            module.to(dtype)


def attend_by_products(model: nn.Module) -> None:
    """Make timm's attention use separate matrix products and softmax instead of PyTorch's fused attention."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]


def _freeze_convolutions(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        same = type(module) is Conv2dSame
        if same or (type(module) is nn.Conv2d and module.padding_mode == "zeros" and isinstance(module.padding, tuple)):
            model.set_submodule(name, FrozenConv.like(module, same=same))


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute embeddings, by name."""
    return {"torch": str(torch.__version__), "timm": timm.__version__}


def check_compiler(device: str) -> None:
    """Raise UsageError unless code can be compiled: there must be a compiler and Python's header files.

    For the processor a C++ compiler is needed, for a CUDA device a C compiler: Triton, which generates the code, calls
    it through a small C module. For Apple's GPU nothing is checked.
    """
    if device == "mps":
        return
    language, variable, *usual = ("C++", "CXX", "g++", "clang++") if device == "cpu" else ("C", "CC", "gcc", "clang")
    if not any(map(shutil.which, filter(None, (os.environ.get(variable), *usual)))):
        raise UsageError(
            f"--compile needs a {language} compiler, and neither {variable} nor {usual[0]} is one here: install "
            f"{usual[0]}, or leave it out"
        )
    folders = [sysconfig.get_path("include"), sysconfig.get_path("include", "posix_prefix")]
    if not any(Path(folder, "Python.h").exists() for folder in folders):
        raise UsageError(
            f"--compile needs Python's header files, and {folders[0]} has no Python.h: install them (python3-dev or "
            "python3-devel of your system), or leave it out"
        )


def load_backbone(
    text: str, *, preset: str = "native", precision: str = "auto", device: str = "auto", compiled: bool = False
) -> Backbone:
    """Load a frozen backbone with its weights.

    Args:
        text: ``NAME``, ``NAME=FILE``, ``NAME=hub`` or ``NAME=embedded``; any timm model, or one of
            :data:`~fitrec_cache.settings.poses.POSES`, which has preset ``native`` and precision ``fp32`` only.
        preset: ``native``: the backbone's own resolution, mean and standard deviation. ``grid``: the same, but the
            output is the last feature map averaged in each of 3 x 3 cells, concatenated: nine times as long.
            ``paper``: frames reduced to 64x64, enlarged again to the backbone's resolution, pixels / 255 (Eq. 2).
            ``table1``: 64x64 directly into the backbone, last feature map flattened.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``: bf16 if the device is faster in it, else fp16 on
            a CUDA device and fp32 elsewhere.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        compiled: Compile the network before its first use: faster, but with different last bits.

    Returns:
        The backbone, in evaluation mode, on the device.

    Raises:
        UsageError: For unknown names.
        WeightsError: If the weights cannot be loaded or do not fit.
    """
    check_preset(preset)
    device = find_device(device)
    keep_to_cores()
    if compiled:
        check_compiler(device)
    choice = BackboneChoice.parse(text)
    precision = _precision_for(choice.name, precision, preset, device)
    model = load_model(choice)
    preprocessing = _preprocessing(model, choice.name, preset)
    if preset == "table1":
        if hasattr(model, "set_input_size"):  # its position embedding has a fixed size
            model.set_input_size(img_size=preprocessing.size)  # type: ignore[operator]
        model = LastMap(model)
    if preset == "grid":
        model = GridMap(model)
    return Backbone(
        model.eval().requires_grad_(False),
        name=choice.name,
        source=choice.weights,
        preprocessing=preprocessing,
        precision=precision,
        device=device,
        compiled=compiled,
    )


def _precision_for(name: str, precision: str, preset: str, device: str) -> str:
    """Return :func:`best_precision`; of a pose fp32, as points are computed to a fraction of a pixel.

    Raises:
        UsageError: If a pose is to be computed in another way.
    """
    chosen = best_precision(precision, device)
    if name not in POSES:
        return chosen
    if preset != "native" or (precision != "auto" and chosen != "fp32"):
        raise UsageError(
            f"{name} has preset native and precision fp32 only, got {preset} and {precision}: leave that out, or "
            "extract it in a call of its own"
        )
    return "fp32"


def check_preset(preset: str) -> None:
    """Raise UsageError unless a preset with this name exists."""
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)


def best_precision(precision: str, device: str) -> str:
    """Return ``precision``; ``auto`` becomes bf16 if ``device`` is faster in it, else fp16 on CUDA, else fp32.

    fp16 is used only on CUDA devices that compute it reliably.
    """
    if precision in PRECISIONS:
        return precision
    if precision != "auto":
        raise unknown_name("precision", precision, ["auto", *PRECISIONS])
    if computes_in_bf16(device):
        return "bf16"
    return "fp16" if torch.device(device).type == "cuda" and is_good_at_fp16(device) else "fp32"


def _preprocessing(model: nn.Module, name: str, preset: str) -> Preprocessing:
    own = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    output = POSE if name in POSES else "grid3" if preset == "grid" else "pooled"
    native = Preprocessing(
        preset=preset,
        first_size=None,
        size=(int(own["input_size"][1]), int(own["input_size"][2])),
        interpolation="bilinear" if own["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
        output=output,
    )
    if preset in ("native", "grid"):
        return native
    small = (FRAME_SIDE, FRAME_SIDE)
    plain = replace(native, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return replace(plain, first_size=small) if preset == "paper" else replace(plain, size=small, output="flattened")
