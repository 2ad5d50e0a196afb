"""Which template makes a model think, or keeps it from thinking."""

from __future__ import annotations

from local_llms.catalog.registry import families, find_template
from local_llms.catalog.schema import Template
from local_llms.errors import UnsupportedFeature


def with_thinking(template: Template, thinking: bool | None) -> Template:
    """The template that a conversation is written with where ``thinking`` is wanted, or not; None: as it is.

    Raises UnsupportedFeature where thinking is wanted of models that do not think.
    """
    form = template.thinking
    if form is None:
        if thinking:
            names = [one.name for family in families().values() for one in family.templates if one.thinking]
            raise UnsupportedFeature(
                f"thinking=True: models of the template {template.name!r} do not think before they answer. Leave it "
                f"out, or name a template of models that do: {', '.join(names)}."
            )
        return template
    other = None if thinking is None else form.on if thinking else form.off
    return template if other is None else find_template(other)[1]
