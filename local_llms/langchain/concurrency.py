"""How many inputs of a batch are under way at a time."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list

Config = RunnableConfig | Sequence[RunnableConfig] | None


def is_limited(config: Config, length: int) -> bool:
    """Whether the caller, or a chain around, says ``max_concurrency``."""
    return any(one.get("max_concurrency") for one in get_config_list(config, length))


def limited(config: Config, length: int, at_once: int) -> list[RunnableConfig]:
    """One config per input; where none says ``max_concurrency``, it is ``at_once``.

    LangChain's own default is a few threads more than there are cores, too few to fill a batch.
    """
    return [
        {**one, "max_concurrency": one.get("max_concurrency") or at_once} for one in get_config_list(config, length)
    ]
