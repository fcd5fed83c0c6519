"""A log of extractions (what each did and how long it took) in the cache; for people only, nothing depends on it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fitrec_cache.common.files import make_folder, parse_json, read_file, write_json

FOLDER = "history"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """One call of ``extract`` that had something to do, whether or not it finished.

    Attributes:
        ended: When it ended, in UTC, ISO 8601; by default now.
        backbones: The backbones, each with its preset and precision.
        device: The device on which frames were embedded.
        done: Number of clips that it finished.
        seconds: Wall time.
        stages: Seconds of wall time by what the main thread did.
        bottleneck: What took longest.
    """

    ended: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    backbones: tuple[str, ...]
    device: str
    done: int
    seconds: float
    stages: Mapping[str, float]
    bottleneck: str

    @classmethod
    def read(cls, entry: Any) -> Extraction:
        """Return the entry that :func:`note` wrote.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        return cls(
            ended=datetime.fromisoformat(entry["ended"]).isoformat(),
            backbones=tuple(map(str, entry["backbones"])),
            device=str(entry["device"]),
            done=int(entry["done"]),
            seconds=float(entry["seconds"]),
            stages={str(k): float(v) for k, v in dict(entry["stages"]).items()},
            bottleneck=str(entry["bottleneck"]),
        )


def note(cache: Path, done: Extraction) -> None:
    """Add an extraction to the log.

    Raises:
        StoreError: If it cannot be written.
    """
    make_folder(cache / FOLDER)
    name = f"{done.ended.replace(':', '').replace('+0000', 'Z')}-{secrets.token_hex(4)}.json"
    write_json(cache / FOLDER / name, asdict(done))


def history(cache: Path) -> list[Extraction]:
    """Return the logged extractions of a cache, earliest first; files that are something else are ignored."""
    found = []
    for path in (cache / FOLDER).glob("[!.]*.json"):
        try:
            found.append(Extraction.read(parse_json(read_file(path))))
        except (OSError, KeyError, TypeError, ValueError, OverflowError):
            continue
    return sorted(found, key=lambda e: e.ended)
