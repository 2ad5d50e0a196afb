"""What a constraint asks for is there to the letter, blanks at the ends too, whatever a template trims."""

from __future__ import annotations

import pytest

from local_llms.models import load_model
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model


@pytest.mark.parametrize("template", ["chatglm3", "glm4", "chatml"])
def test_blanks_that_are_asked_for_stay(template: str) -> None:
    with scripted_model(lambda: ScriptedBackend(say(" yes\n"))) as path, load_model(path, template=template) as model:
        answer = model.generate("Hi", choices=[" yes\n", "no"], temperature=0)
        assert answer.text == " yes\n"
        stream = model.stream("Hi", choices=[" yes\n", "no"], temperature=0)
        assert "".join(event.text for event in stream) == " yes\n"


def test_a_free_answer_is_trimmed_where_the_template_does_so() -> None:
    with scripted_model(lambda: ScriptedBackend(say("\n yes"))) as path, load_model(path, template="glm4") as model:
        assert model.generate("Hi", temperature=0).text == "yes"
