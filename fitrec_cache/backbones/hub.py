"""The model hub, asked before timm asks it: what is on this machine already, and whether there is a way to it at all.

Its library tries for most of a minute before it gives up, also where the weights lie in its own cache.
"""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

#: What the library that it fetches by (requests, or httpx, whose errors are no OSError) raises without a connection.
NETWORK_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)


def cached_file(repository: str, name: str) -> str | None:
    """Return the path of a file of the hub that was fetched before, or None.

    Args:
        repository: Such as ``timm/resnet50.a1_in1k``; a revision may follow after ``@``.
        name: The file in it.
    """
    repository, _, revision = repository.partition("@")
    found = try_to_load_from_cache(repository, name, revision=revision or None)
    return found if isinstance(found, str) else None


def why_nothing_is_fetched() -> str:
    """As :func:`hub_is_out_of_reach`, also where the hub's library was told to stay offline."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else hub_is_out_of_reach()


def hub_is_out_of_reach() -> str:
    """Return why nothing can be fetched, in a few words; empty if it may be possible.

    Only the hub's name is looked up, and where a proxy does that, nothing is.
    """
    address = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies().keys() & {address.scheme, "all"}:
        return ""
    try:
        socket.getaddrinfo(address.hostname, address.port or address.scheme)
    except OSError as error:
        return f"{address.hostname}: {error.strerror or error}"
    return ""
