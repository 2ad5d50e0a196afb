"""The figures of answers: a token callback that collects them, and how they are shown."""

from __future__ import annotations

from local_llms.callbacks import TokenCallback
from local_llms.types import Completion


class Figures(TokenCallback):
    """Keeps the finished answers of whatever it is attached to."""

    def __init__(self) -> None:
        self.completions: list[Completion] = []

    def on_end(self, completion: Completion) -> None:
        """Keep the answer."""
        self.completions.append(completion)

    def take(self) -> list[Completion]:
        """The answers since the last call."""
        taken, self.completions = self.completions, []
        return taken


def figures_line(completions: list[Completion]) -> str:
    """Tokens, time to the first token and speed of one answer, or of several that make one together."""
    if not completions:
        return "no figures"
    prompt = sum(item.usage.prompt_tokens for item in completions)
    cached = sum(item.usage.cached_prompt_tokens for item in completions)
    answer = sum(item.usage.completion_tokens for item in completions)
    reused = f" ({cached} from the prefix cache)" if cached else ""
    last = completions[-1].timings
    return (
        f"{prompt} prompt tokens{reused}, {answer} answer tokens, "
        f"first token after {last.first_token:.2f} s, {last.tokens_per_second:.1f} tokens/s"
    )
