"""Weight files: read without running code from them, loaded strictly, identified by their content."""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fitrec_cache.common.files import is_file
from fitrec_cache.errors import WeightsError

#: The exceptions caused by damaged weight files, besides the one for files that hold more than tensors.
_OF_PYTHON = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AssertionError, AttributeError)
_DAMAGE = (*_OF_PYTHON, ArithmeticError, struct.error, zipfile.BadZipFile, safetensors.SafetensorError)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code from the file."""
    if not is_file(path):
        raise WeightsError(
            f"weights file {str(path)[:300]} not found: expected a .safetensors or a torch file, `hub` or `embedded`"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _refuse_compressed(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file {path} is not a plain state dict, and nothing else is loaded, as it could run code: "
            "expected .safetensors, or what torch.save(model.state_dict(), FILE) writes"
        ) from error
    except _DAMAGE as error:
        reason = str(error) or "it is empty or ends too early"  # an EOFError has no text
        raise WeightsError(f"weights file {path} cannot be read: {reason}. Copy or download it again") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    held = loaded.items() if isinstance(loaded, Mapping) else [(None, loaded)]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in held):
        raise WeightsError(f"weights file {path} holds no state dict (names to tensors)")
    return dict(held)


def _refuse_compressed(path: Path) -> None:
    """Refuse a file with compressed entries: torch.save writes none, and they could expand a thousandfold."""
    if not zipfile.is_zipfile(path):
        return  # written by torch before 1.6
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(
                f"weights file {path} is compressed, as torch.save makes none (is it TorchScript?): write it with "
                "torch.save(model.state_dict(), FILE)"
            )


def fit_weights(model: nn.Module, state: dict[str, Tensor], origin: str, *, classifier: tuple[str, ...]) -> None:
    """Load weights strictly into a model without classifier; the weights may contain a classifier of any size.

    Args:
        model: The model to load them into.
        state: Tensors by name.
        origin: What to call the weights in an error.
        classifier: Names of the modules that are left out.

    Raises:
        WeightsError: If a tensor is missing, unknown or of another shape.
    """
    own = model.state_dict()
    left_out = tuple(f"{_whole_head(name, own)}." for name in classifier)
    state = {k: v for k, v in state.items() if not k.startswith(left_out)}
    optional = {k for k in own if k.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - optional)
    extra = sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    problems = [
        f"{len(names)} {what} such as {names[0]}"
        for what, names in (("tensors missing", missing), ("not known", extra), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise WeightsError(
            f"weights do not fit {origin}: {', '.join(problems)}. Expected weights of exactly this model"
        )
    model.load_state_dict(state, strict=False)


def _whole_head(classifier: str, own: Collection[str]) -> str:
    """Return the module around a classifier (``head`` for ``head.linear``) if the model has nothing else in it."""
    around = classifier.rpartition(".")[0]
    return around if around and not any(k.startswith(f"{around}.") for k in own) else classifier


def weights_digest(model: nn.Module) -> str:
    """Return the sha256 of all tensors of a model: name, shape and float32 bytes, in the order of their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            value = tensor.detach().float().cpu().contiguous()
            sha.update(f"{name.removeprefix('model.')} {tuple(value.shape)}\n".encode())
            sha.update(value.numpy().tobytes())
    return sha.hexdigest()
