"""What people write where a model is named, and what they hear."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from local_llms import load_model
from local_llms.cli.main import app
from local_llms.errors import LocalLLMError, ModelFileError, OptionError


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TheBloke/Llama-2-7B-Chat-GGUF", '"hf:TheBloke/Llama-2-7B-Chat-GGUF"'),
        ("https://hub.example/TheBloke/Llama-2-7B-Chat-GGUF/blob/main/x.gguf", '"hf:TheBloke/Llama-2-7B-Chat-GGUF"'),
        ("models/vicuna.Q4_0.gguf", "There is no file models/vicuna.Q4_0.gguf. Give the path"),
        ("./nothing", "There is no file ./nothing."),
        ("C:\\models\\vicuna.gguf", "There is no file C:\\models\\vicuna.gguf."),
        ("alpaca-7b", "tatsu-lab/alpaca-7b-wdiff"),
    ],
)  # fmt: skip
def test_a_place_that_is_none(name: str, hint: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(name)
    assert hint in str(caught.value)
    assert ("hf:" in str(caught.value)) == ("hf:" in hint)


def test_an_empty_name() -> None:
    with pytest.raises(OptionError, match="empty text"):
        load_model("")


def test_a_family_is_no_model() -> None:
    with pytest.raises(LocalLLMError, match="Did you mean 'vicuna-"):
        load_model("vicuna")


def test_info_of_a_model_that_nobody_offers() -> None:
    result = CliRunner().invoke(app, ["info", "alpaca-7b"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "not here, and nobody offers it: the notes say how to come by it" in result.output
    assert "alpaca-7b-wdiff" in result.output


def test_a_size_that_nobody_tells_is_no_word() -> None:
    listed = CliRunner().invoke(app, ["list", "--family", "dolly"], env={"COLUMNS": "200"})
    line = next(line for line in listed.output.splitlines() if line.startswith("dolly-v2-3b"))
    assert line.split()[4] == "–"
    shown = CliRunner().invoke(app, ["info", "dolly-v2-3b"], env={"COLUMNS": "200"})
    assert "not here yet; the first use fetches it" in shown.output
    assert "unknown" not in shown.output
