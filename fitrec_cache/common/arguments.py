"""Accept obvious equivalents of an argument's type: a string for a path, a single value where a list is expected."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from reprlib import repr as shown
from typing import Any, ParamSpec, TypeVar

import numpy as np

from fitrec_cache.common.files import with_home
from fitrec_cache.errors import FitrecError, UsageError
from fitrec_cache.wording import NEEDS_LINUX

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def plain_arguments(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Decorator that accepts obvious equivalents of a function's annotated types.

    A string is accepted for a ``Path``, with ``~`` for the home folder; a single value where a sequence is expected;
    numpy's numbers and booleans for Python's. A string is never treated as a sequence of characters.

    Raises:
        FitrecError: When the decorated function is called on Windows.
        UsageError: When it is called with a value that cannot be converted.
        TypeError: When it is called with an argument that it does not take, or without one that it requires.
    """
    kinds = {name: _KINDS[kind] for name, kind in function.__annotations__.items() if kind in _KINDS}
    signature = inspect.signature(function)
    places = [each.name for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        if sys.platform == "win32":
            raise FitrecError(NEEDS_LINUX)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            free = [name for name in places if name != "self"]
            named = f": all but {' and '.join(free)} need their names" if free else ": each needs its name"
            hint = named if len(args) > len(places) else ""
            raise TypeError(f"{function.__qualname__}() {error}{hint}") from None
        for name, value in bound.arguments.items():
            if name in kinds:
                bound.arguments[name] = kinds[name](name, value)
        return function(*bound.args, **bound.kwargs)

    return call


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return str(value)
    if type(value).__module__ == "torch":  # a device
        return str(value)
    raise UsageError(f"{name} is {shown(value)}: expected a text")


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} is {shown(value)}: expected a path")
    text = os.fspath(value)
    return Path(with_home(text) if text == "~" or text.startswith("~/") else text)


def _path_or_object(name: str, value: Any) -> Any:
    return _path(name, value) if isinstance(value, str | os.PathLike) else value


def _whole(name: str, value: Any) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise UsageError(f"{name} is {shown(value)}: expected a whole number")


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, int | np.integer | np.bool_) and value in (0, 1):
        return bool(value)
    raise UsageError(f"{name} is {shown(value)}: expected True or False")  # a text such as "no" would count as True


def _number(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, np.number):
        return float(value)
    raise UsageError(f"{name} is {shown(value)}: expected a number")


def _several(kind: Callable[[str, Any], Any]) -> Callable[[str, Any], list[Any]]:
    def convert(name: str, value: Any) -> list[Any]:
        if isinstance(value, Mapping):
            hint = f", such as {[f'{key}=...' for key in value]}" * (kind is _text)
            raise UsageError(f"{name} is {shown(value)}: expected a list{hint}")
        one = isinstance(value, str | os.PathLike) or not isinstance(value, Iterable)
        return [kind(name, each) for each in ([value] if one else value)]

    return convert


def _optional(kind: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else kind(name, value)


_SINGLE: dict[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "Path": _path,
    "int": _whole,
    "float": _number,
    "bool": _flag,
}

#: The converter of each annotation, by the annotation's text.
_KINDS = _SINGLE | {f"Sequence[{name}]": _several(kind) for name, kind in _SINGLE.items()}
_KINDS |= {f"{name} | None": _optional(kind) for name, kind in _KINDS.items()}
_KINDS |= dict.fromkeys(("Path | Features | None", "Path | Recogniser"), _path_or_object)
