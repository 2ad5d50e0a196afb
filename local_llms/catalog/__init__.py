"""What models there are, and what is known about them: data from ``families/*.toml`` and from the user's own files."""

from local_llms.catalog.registry import (
    class_names,
    default_model,
    families,
    find_adapter,
    find_family,
    find_model,
    find_template,
    list_adapters,
    list_models,
)
from local_llms.catalog.schema import (
    AdapterCard,
    Family,
    FileSource,
    HubSource,
    ModelCard,
    PackageSource,
    Template,
    ThinkingFormat,
)
from local_llms.catalog.thinking import with_thinking

__all__ = [
    "AdapterCard",
    "Family",
    "FileSource",
    "HubSource",
    "ModelCard",
    "PackageSource",
    "Template",
    "ThinkingFormat",
    "class_names",
    "default_model",
    "families",
    "find_adapter",
    "find_family",
    "find_model",
    "find_template",
    "list_adapters",
    "list_models",
    "with_thinking",
]
