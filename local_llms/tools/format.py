"""How a template speaks of tools."""

from __future__ import annotations

from local_llms.catalog import find_template
from local_llms.catalog.schema import Template, ToolFormat

_DESCRIBED = "plain"
"""The template whose format is described to the model, for those that were trained with none."""


def format_of(template: Template) -> ToolFormat:
    """The template's own format, else the one that is described to the model in words."""
    if template.tools is not None:
        return template.tools
    described = find_template(_DESCRIBED)[1].tools
    return described if described is not None else ToolFormat()
