"""Ways in which checkpoints are written, in the order in which they are asked. Importing this imports no library."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from local_llms.backends.transformers import folder, gguf_file, lit
from local_llms.backends.transformers.chatglm import original as chatglm
from local_llms.backends.transformers.parts import Layout

LAYOUTS = (chatglm, lit, folder, gguf_file)


def layout_of(path: Path) -> tuple[Layout, str] | None:
    """The first layout that claims a folder or file, and why; None where none does."""
    for layout in cast(tuple[Layout, ...], LAYOUTS):
        reason = layout.claims(path)
        if reason is not None:
            return layout, reason
    return None
