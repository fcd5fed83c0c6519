"""Google's files of networks that see poses: where they are, and downloading them once."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import torch

from fitrec_cache.backbones.hub import why_nothing_is_fetched
from fitrec_cache.common.devices import first_line
from fitrec_cache.common.files import is_file
from fitrec_cache.errors import WeightsError
from fitrec_cache.settings.poses import POSES

#: Where Google publishes them.
POSES_ADDRESS = "https://storage.googleapis.com/mediapipe-models/pose_landmarker"


def kept_file(name: str) -> Path:
    """Return where the downloaded file of one of :data:`POSES` is, or will be."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(_address(name)).name)


def is_kept(name: str) -> bool:
    """Say whether the file of one of :data:`POSES` is on this machine (True) or can be downloaded (False).

    Raises:
        WeightsError: If neither.
    """
    if is_file(kept_file(name)):
        return True
    if reason := why_nothing_is_fetched(POSES_ADDRESS):
        raise _not_fetched(name, reason)
    return False


def fetch_pose(name: str) -> Path:
    """Return the file of one of :data:`POSES`, downloaded if it is not on this machine yet.

    Raises:
        WeightsError: If it cannot be downloaded, or is not the file that was published.
    """
    file = kept_file(name)
    if is_kept(name):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_address(name), str(file), hash_prefix=POSES[name], progress=False)
    except (OSError, HTTPException, ValueError, RuntimeError) as error:  # RuntimeError: it has another sha256
        raise _not_fetched(name, first_line(error)) from error
    return file


def _not_fetched(name: str, reason: str) -> WeightsError:
    return WeightsError(
        f"the weights of {name} could not be downloaded ({reason}). Without network, download {_address(name)} "
        f"elsewhere and give a file: --backbone {name}=FILE"
    )


def _address(name: str) -> str:
    size = name.rpartition("_")[2]
    return f"{POSES_ADDRESS}/pose_landmarker_{size}/float16/1/pose_landmarker_{size}.task"
