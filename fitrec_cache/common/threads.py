"""The number of threads with which PyTorch computes beside other programs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fitrec_cache.common.cpu_contention import LEAST, CpuContention
from fitrec_cache.common.devices import cores, threads_are_chosen


@dataclass(frozen=True)
class Threads:
    """With how many threads to compute.

    Attributes:
        number: Their number.
        usual: Their number where no other program computes.
        others: How many cores other programs use.
    """

    number: int
    usual: int
    others: float = 0.0

    @property
    def notes(self) -> list[str]:
        """A note if there are fewer than usual."""
        if self.number == self.usual:
            return []
        return [
            f"other programs use {self.others:.1f} of {cores()} cores: computing with {self.number} of {self.usual} "
            "threads, which is faster beside them; OMP_NUM_THREADS sets the number (a head's last bits depend on it)"
        ]


def all_threads() -> Threads:
    """Return the number of threads that PyTorch has."""
    return Threads(torch.get_num_threads(), torch.get_num_threads())


def threads_beside_others(contention: CpuContention | None = None) -> Threads:
    """Return with how many threads PyTorch computes best now: all of them, less the cores that other programs use.

    PyTorch's threads wait for each other after every operation, so one that has lost its core to another program holds
    up all of them: on two cores, beside one busy process, a head with an LSTM took three to four times as long to train
    with two threads as with one (docs/performance.md).

    A number that the user chose is kept. So is PyTorch's own where it is not known what others use: without
    ``/proc/stat`` (only Linux has it), or where this process may use only some of the machine's cores, as in a
    container.

    Args:
        contention: Has looked at the cores for a while. None: begin now, which takes 0.2 s.
    """
    every = all_threads()
    if every.usual == 1 or threads_are_chosen() or cores() < (os.cpu_count() or 1):
        return every
    used = (contention or CpuContention(every.usual)).used_by_others()
    if used is None or used < LEAST:
        return every
    return Threads(max(1, min(every.usual, cores() - math.ceil(used))), every.usual, used)


@contextlib.contextmanager
def threads_set_to(number: int) -> Iterator[None]:
    """Context in which PyTorch computes with this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
