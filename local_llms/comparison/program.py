"""The program of a process that measures one model: a ``Task`` as JSON comes in, a ``Measurement`` goes out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from local_llms.comparison.measurement import Task, measure
from local_llms.errors import LocalLLMError


def main() -> None:
    """Read the task, measure, write the outcome, or ``{"error": …}``."""
    # Whatever a library prints goes where errors go: standard output is for the outcome.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        outcome = asdict(measure(Task(**json.load(sys.stdin))))
    except LocalLLMError as error:
        outcome = {"error": str(error)}
    with answers:
        json.dump(outcome, answers)


if __name__ == "__main__":
    main()
