"""A model without weights whose logits are noise: whatever comes out right does so by the mask alone."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from local_llms.constraints import Compiler, Constraint
from local_llms.testing.scripted import EOS, ScriptedBackend

Write = Callable[[Constraint, int], str | None]


def noise(tokens: Sequence[int]) -> int:
    """A random byte, the same for the same tokens."""
    return random.Random(zlib.crc32(bytes(str(list(tokens)), "ascii"))).randrange(256)


@pytest.fixture
def compiler() -> Compiler:
    return Compiler(ScriptedBackend())


@pytest.fixture
def write(compiler: Compiler) -> Write:
    """Answers of a constraint, every allowed token being equally probable; None where it takes too long."""

    def writer(constraint: Constraint, seed: int) -> str | None:
        matcher, chance = compiler.compile(constraint).matcher([EOS]), np.random.default_rng(seed)
        written = bytearray()
        for _ in range(5000):
            if matcher.finished:
                return written.decode()
            token = int(chance.choice(np.flatnonzero(matcher.allowed())))
            if token == EOS:
                return written.decode()
            matcher.accept(token)
            written.append(token)
        return None

    return writer
