"""Check the model hub before timm uses it: which files are already on this machine, and whether the hub is reachable.

The hub's own library retries for most of a minute before it gives up, even if the weights are in its cache.
"""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

#: The exceptions that the hub's HTTP library (requests, or httpx, whose errors are not OSErrors) raises without a
#: connection.
NETWORK_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)


def cached_file(repository: str, name: str) -> str | None:
    """Return the path of a file of the hub that was downloaded before, or None.

    Args:
        repository: Such as ``timm/resnet50.a1_in1k``, optionally followed by ``@`` and a revision.
        name: The file in it.
    """
    repository, _, revision = repository.partition("@")
    found = try_to_load_from_cache(repository, name, revision=revision or None)
    return found if isinstance(found, str) else None


def why_nothing_is_fetched(endpoint: str = constants.ENDPOINT) -> str:
    """Like :func:`hub_is_out_of_reach`, but also if the hub's library was told to stay offline."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else hub_is_out_of_reach(endpoint)


def hub_is_out_of_reach(endpoint: str = constants.ENDPOINT) -> str:
    """Return in a few words why nothing can be downloaded from an address; empty if it may be possible.

    Only the host name is resolved; if a proxy does that, nothing is checked.
    """
    address = urlsplit(endpoint)
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies().keys() & {address.scheme, "all"}:
        return ""
    try:
        socket.getaddrinfo(address.hostname, address.port or address.scheme)
    except OSError as error:
        return f"{address.hostname}: {error.strerror or error}"
    return ""
