"""The one place that knows the template library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from fitrec_cache.report import words
from fitrec_cache.wording import count, plural

#: In the head of every page; tells a report from other files.
GENERATOR = '<meta name="generator" content="fitrec-cache'


def render(context: Mapping[str, Any]) -> str:
    """Fill the page's template; whatever is put in is escaped.

    Args:
        context: Everything the template names; a name that is missing is an error.

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
