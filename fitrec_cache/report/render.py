"""Render the page's template; the only module that imports the template library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from fitrec_cache.report import words
from fitrec_cache.wording import count, plural

#: In the head of every page, to distinguish a report from other files.
GENERATOR = '<meta name="generator" content="fitrec-cache'


def render(context: Mapping[str, Any]) -> str:
    """Fill the page's template; all inserted values are escaped.

    Args:
        context: All variables of the template; a missing one is an error.

    Returns:
        The HTML file's text.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitrec_cache.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain = (words.percent, words.spread, count, plural, words.duration)
    environment.filters |= {function.__name__: function for function in plain}
    return environment.get_template("page.html").render(context)
