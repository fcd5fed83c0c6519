"""Normalisation of features before a head: fitted once on the training clips, never trained."""

from __future__ import annotations

import math

import torch
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fitrec_cache.errors import DivergedError, UsageError

#: Principal components of vectors up to this length are computed exactly; number of spare directions in a projection.
_MOST_EXACT, _SPARE = 4096, 32

#: A value whose standard deviation is at most this share of its mean varies only by rounding.
_ROUNDING = 1e-5

#: With poses beside them, features of images are multiplied by this, as they tell less of a new place; and how often
#: each pose's variation counts. Both chosen on validation clips and some of the rooms (docs/design.md).
_IMAGES, _VARIATION = 0.15, 2.0


class Normalisation(nn.Module):
    """``(x - shift) scale``, by component or by feature; fitted once on the training clips, never trained.

    Args:
        kind: ``standard``, ``pca`` or ``whiten``.
        inputs: Length d of a frame's vector.
        components: Length p of the result; ignored for ``standard``, where it is d.
    """

    def __init__(self, kind: str, inputs: int, components: int) -> None:
        super().__init__()
        self.kind = kind
        self.inputs = inputs
        self.outputs = inputs if kind == "standard" else components
        self.register_buffer("shift", torch.zeros(inputs))
        shape = (inputs,) if kind == "standard" else (inputs, components)
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, frames: Tensor) -> None:
        """Fit to training frames ``(N, d)``, float32; they are centred in place, as they may take half of all memory.

        The sign of each principal component is chosen so that its largest entry is positive. ``pca`` divides all
        components by one number, the root of their mean variance; ``whiten`` divides each by its own standard
        deviation.
        """
        shift = frames.mean(dim=0)  # (d,)
        centred = frames.sub_(shift)
        if self.kind == "standard":
            variances = centred.square().mean(dim=0)  # (d,)
            _check_finite(variances, centred)
            deviations = variances.sqrt()
            least = 1e-3 * float(deviations.max().clamp(min=1e-12))
            scale = (1 / deviations.clamp(min=least)).masked_fill(deviations <= _ROUNDING * shift.abs(), 0)
        else:
            variances, basis = _principal(centred, self.outputs)  # (p,), (d, p)
            basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
            spread = variances if self.kind == "whiten" else variances.mean().expand_as(variances)
            scale = basis / _deviations(spread, variances[0])  # (d, p)
        self.load_state_dict({"shift": shift, "scale": scale})

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, T, p)`` for features ``(B, T, d)``."""
        shift, scale = self.get_buffer("shift"), self.get_buffer("scale")
        centred = checked_features(x, self.inputs) - shift
        return centred * scale if self.kind == "standard" else centred @ scale


class PosesApart(nn.Module):
    """Normalises poses by themselves, and adds how much each of their values varies in the clip.

    An exercise shows in what moves as much as in how a body is held, and a mean over time loses that. Each value of a
    pose gets mean 0 and variance 1. Its standard deviation over the clip, less the mean of that in training, is
    repeated in every frame, so that any head sees it. Features of images get a normalisation of their own: principal
    components of both together would hardly contain the poses.

    Args:
        images: The normalisation of a frame's other values; None if there are none.
        poses: Number p of values of poses, the last of each frame.

    Source:
        Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018 (mean and standard
        deviation over time as one vector).
    """

    def __init__(self, images: Normalisation | None, poses: int) -> None:
        super().__init__()
        self.images = images
        self.poses = Normalisation("standard", poses, 0)
        self.kind = f"{images.kind if images else 'standard'}, poses apart"
        self.inputs = poses + (images.inputs if images else 0)
        self.outputs = 2 * poses + (images.outputs if images else 0)
        self.register_buffer("variation", torch.zeros(poses))

    def fit(self, frames: Tensor) -> None:
        """Fit the scales to training frames ``(N, d)``, float32; :meth:`fit_variation` comes after it."""
        if self.images is not None:
            self.images.fit(frames[:, : self.images.inputs])
        self.poses.fit(frames[:, -self.poses.inputs :])

    def fit_variation(self, poses: Tensor) -> None:
        """Fit the mean variation to the poses of training clips, ``(N, T, p)`` float32."""
        self.load_state_dict(self.state_dict() | {"variation": _variation(self.poses(poses)).mean(dim=(0, 1))})

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, T, q + 2 p)`` for features ``(B, T, d)``: q values of images, poses, and their variation."""
        x = checked_features(x, self.inputs)
        poses = self.poses(x[..., -self.poses.inputs :])  # (B, T, p)
        varied = _variation(poses) - self.get_buffer("variation")  # (B, 1, p)
        parts = [poses, (_VARIATION * varied).expand_as(poses)]
        if self.images is not None:
            parts.insert(0, _IMAGES * self.images(x[..., : self.images.inputs]))
        return torch.cat(parts, dim=2)


def _variation(x: Tensor) -> Tensor:
    """Return the standard deviation over time ``(B, 1, p)`` of ``x (B, T, p)``."""
    return x.std(dim=1, keepdim=True, unbiased=False)


def _deviations(variances: Tensor, highest: Tensor) -> Tensor:
    """Return the standard deviations; infinite (so without effect) where nothing but rounding varied in training."""
    floor = 1e-6 * float(highest.clamp(min=1e-12))
    return torch.where(variances > floor, variances.sqrt(), math.inf)


def _check_finite(found: Tensor, centred: Tensor) -> None:
    if not bool(torch.isfinite(found).all()):
        raise DivergedError(
            f"features up to {float(centred.abs().max()):.3g} are too large to be normalised: scale them, or leave "
            "them as they are (setting normalise: none)"
        )


def _principal(centred: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Return variances ``(p,)``, highest first, and directions ``(d, p)`` of centred vectors ``(N, d)``.

    For long vectors (a grid of cells) a randomised projection is used, which finds the leading components to many
    digits in a fraction of the time.

    Source:
        Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011.

    Raises:
        DivergedError: If the variances are not finite.
        UsageError: If more directions are requested than there are vectors.
    """
    if components > len(centred):
        raise UsageError(
            f"components is {components}, but for features this long only {len(centred)} vectors are used, which "
            "give no more directions: choose fewer"
        )
    if centred.shape[1] <= _MOST_EXACT:
        covariance = centred.T @ centred / len(centred)  # (d, d)
        _check_finite(covariance, centred)
        # Computed in float64: in float32 LAPACK may fail if, with few clips, most directions have no variance. Unlike
        # PyTorch's eigh, SciPy's computes only the requested directions.
        wanted = (len(covariance) - components, len(covariance) - 1)
        with threadpool_limits(torch.get_num_threads()):  # the last bits depend on this number, as PyTorch's do
            found = eigh(covariance.double().numpy(), subset_by_index=wanted, overwrite_a=True, check_finite=False)
        variances, vectors = map(torch.from_numpy, found)  # ascending
        return variances.flip(0).float(), vectors.flip(1).float()
    _check_finite(centred.square().sum(), centred)
    few = min(components + _SPARE, *centred.shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also reseed GPUs, which a training may use
        _, values, vectors = torch.svd_lowrank(centred, q=few, niter=4)  # descending
    return (values.square() / len(centred))[:components], vectors[:, :components]


def checked_features(x: Tensor, inputs: int) -> Tensor:
    """Return features ``(B, T, d)`` as they are.

    Raises:
        ValueError: If they have another shape than ``(B, T, inputs)``, or whole numbers.
    """
    if x.dim() != 3 or x.shape[2] != inputs or x.shape[1] < 1:
        raise ValueError(f"features of shape {tuple(x.shape)}: expected (B, T, {inputs}) with T at least 1")
    if not x.is_floating_point():
        raise ValueError(f"features of type {x.dtype}: expected floating point; convert them with .float()")
    return x
