"""What an architecture asks of attention and this backend does not compute is refused, and never left out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from local_llms.backends.transformers.native import packed_attention  # noqa: E402
from local_llms.errors import UnsupportedFeature  # noqa: E402


@pytest.mark.parametrize("name", ["s_aux", "position_bias"])
def test_sinks_and_biases(name: str) -> None:
    heads = torch.zeros(1, 2, 3, 4)
    asked = {name: torch.zeros(2)}
    with pytest.raises(UnsupportedFeature, match="sinks or biases"):
        packed_attention(torch.nn.Module(), heads, heads, heads, None, packed=None, **asked)
