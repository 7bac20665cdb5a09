"""Fill the templates of the pages; every value is escaped.

`templates/` lays out typed data: report.html for `report.page`, sheet.html for `report.sheet`, and
one stylesheet for both.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from report import sentences, words
from report.facts import FEW_ERRORS

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    "share", "whole", "number", "count", "plural", "of", "fmr", "target", "visible", "shortened",
    "slug",
)  # fmt: skip


def render(template: str, **values: object) -> str:
    """Fill a template of `report/templates`; every value is escaped unless it is `Markup`."""
    return _environment().get_template(template).render(**values)


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as the address of a picture that stands in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        environment.filters[name] = getattr(words, name)
    environment.filters.update(area_name=sentences.area_name, data_uri=data_uri)
    environment.filters["json"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    environment.globals.update(units=sentences.UNITS, few_errors=FEW_ERRORS)
    return environment
