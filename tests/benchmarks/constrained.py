"""Measures what a constraint costs. Run by hand, with nothing else running::

    python -m tests.benchmarks.constrained           # on the small default model
    python -m tests.benchmarks.constrained --runs 5

For each kind of constraint: the speed of one held stream after its first token against that of a free one of as many
tokens; they take turns, and the median of the pairs' ratios is shown. Then the time to compile a schema, for the first
time and when it is kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from local_llms.constraints import json_document
from local_llms.models import LoadedModel, load_model
from local_llms.types import Tool

QUESTION = "Write a long story about rivers."
STORY = {
    "type": "object",
    "properties": {"story": {"type": "string", "minLength": 700, "maxLength": 720}},
    "required": ["story"],
}
PLACE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 20},
        "kind": {"enum": ["river", "town", "bridge"]},
        "length": {"type": "integer", "minimum": 0, "maximum": 9999},
        "note": {"anyOf": [{"type": "string", "maxLength": 60}, {"type": "null"}]},
    },
    "required": ["name", "kind", "length", "note"],
}
PLACES = {"type": "array", "items": PLACE, "minItems": 6, "maxItems": 8}
LOOK_UP = Tool("look_up", "Look something up.", {"type": "object", "properties": {"text": {"type": "string"}}})
KINDS: dict[str, dict[str, Any]] = {
    "schema, one long text": {"schema": STORY},
    "schema, a list of objects": {"schema": PLACES},
    "regular expression": {"regex": "[A-Za-z ,.]{600,620}"},
    "tools, answered with text": {"tools": [LOOK_UP], "max_tokens": 160},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default=None, help="a catalog name or a file; the default model where left out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    with load_model(arguments.model, context_length=2048, threads=arguments.threads) as model:
        for kind, held in KINDS.items():
            ratio, speed = compare(model, held, arguments.runs)
            print(f"{kind}: {ratio:.2f} of the free speed ({speed:.0f} tokens/s)", flush=True)
        compiling(model)


def compare(model: LoadedModel, held: dict[str, Any], runs: int) -> tuple[float, float]:
    """The median ratio of held to free, and the median speed of a held stream in tokens a second."""
    options = {"temperature": 0, "max_tokens": 500, **held}
    model.generate(QUESTION, **options)  # compiles, and reads the prompt
    ratios, speeds = [], []
    for _ in range(runs):
        answer = model.generate(QUESTION, **options)
        count = answer.usage.completion_tokens
        free = model.generate(QUESTION, temperature=0, max_tokens=count, logit_bias=no_end(model))
        speeds.append(answer.timings.tokens_per_second)
        ratios.append(speeds[-1] / free.timings.tokens_per_second)
    return statistics.median(ratios), statistics.median(speeds)


def no_end(model: LoadedModel) -> dict[int, float]:
    """So that a free answer is as long as the held one."""
    with model._use() as engine:
        return dict.fromkeys(engine.info.end_ids, -100.0)


def compiling(model: LoadedModel) -> None:
    with model._use() as engine:
        compiler = engine.constraints
        fresh = {**PLACE, "description": "not compiled yet"}
        times = []
        for _ in range(201):
            start = time.perf_counter()
            compiler.compile(json_document(fresh)).matcher(engine.info.end_ids)
            times.append(1000 * (time.perf_counter() - start))
    print(f"compiling a schema: {times[0]:.1f} ms; when it is kept: {statistics.median(times[1:]):.3f} ms")


if __name__ == "__main__":
    main()
