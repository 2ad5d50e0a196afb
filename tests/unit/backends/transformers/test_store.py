"""Keys and values in half precision: what went out of range stays with the request that it came from."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from local_llms.backends.transformers.attention import KeyValueStore  # noqa: E402
from local_llms.backends.transformers.parts import LayerShape  # noqa: E402


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_out_of_range_are_not_kept(kind: torch.dtype) -> None:
    """A masked NaN is still one: it would reach those whose tokens stand beside it, or who share its cells."""
    store = KeyValueStore(4, [LayerShape(1, 2, 2)], kind, torch.device("cpu"))
    large = torch.tensor([[[1e6, -1e6]]])
    wrong = torch.tensor([[[float("nan"), 3.0]]]) if kind == torch.float16 else torch.tensor([[[0.0, 3.0]]])
    store.write(0, torch.tensor([1]), large, wrong)
    assert bool(torch.isfinite(store.keys[0]).all() and torch.isfinite(store.values[0]).all())
    assert store.keys[0].dtype == kind
    assert store.keys[0][1, 0].tolist() == pytest.approx(
        [1e6, -1e6] if kind != torch.float16 else [65504, -65504], 0.01
    )
    assert store.values[0][1, 0].tolist() == [0.0, 3.0]
