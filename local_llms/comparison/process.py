"""One model is measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from local_llms.comparison.measurement import Measurement, Task
from local_llms.errors import LocalLLMError

PROGRAM = "local_llms.comparison.program"


def measure_apart(task: Task) -> Measurement:
    """Measure a model in a new process. Raises LocalLLMError with the text of what went wrong there."""
    folder = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        # -P: a module in the current folder is not taken for one of Python's.
        [sys.executable, "-P", "-m", PROGRAM],
        input=json.dumps(asdict(task)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C is for this process, which then ends the other one.
        start_new_session=True,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise LocalLLMError(
            f"The process that measured {task.model} died (exit code {done.returncode}), perhaps for want of memory."
        ) from None
    if "error" in answer:
        raise LocalLLMError(f"{task.model}: {answer['error']}")
    return Measurement(**answer)
