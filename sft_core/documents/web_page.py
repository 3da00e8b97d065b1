"""HTML that loads nothing: its styles stand inside, and their digest in the page's policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def web_page(
    template: str, styles: tuple[str, ...], filters: dict[str, Callable[..., str]], **values: object
) -> str:
    """A template of ours, filled; every value is escaped, and a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=True,
    )
    environment.filters |= filters
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    return environment.get_template(template).render(
        style=Markup(style),  # noqa: S704  (our own files)
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        **values,
    )
