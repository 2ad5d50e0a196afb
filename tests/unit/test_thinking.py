"""Models that think, from ``load_model``: thoughts apart, on, off and bounded, beside everything else."""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from local_llms.catalog import find_template
from local_llms.errors import AnswerCut, OptionError, RequestCancelled, UnsupportedFeature
from local_llms.models import LoadedModel, load_model
from local_llms.testing.scripted import EOS, SPECIALS, ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.thinking import format_in
from local_llms.types import Message, Tool, ToolCall

TAGS = {"<think>": 250, "</think>": 251}
"""Bytes that no UTF-8 text has, as special tokens."""
QUESTION = "Why?"


class Wanting:
    """Says a text after whatever it is asked, byte by byte, whatever else is forced upon it in between.

    ``prompts``: the text of every prompt.
    """

    def __init__(self, text: str, *, until: str = "", then: str = "") -> None:
        """Once ``until`` has come, whoever wrote it, it goes on with ``then``."""
        self.prompts: list[str] = []
        self._text, self._until, self._then = text.encode(), until.encode(), then.encode()
        self._longest: list[int] = []
        self._start = 0

    def __call__(self, tokens: Sequence[int]) -> int:
        if list(tokens[:-1]) != self._longest:
            self._start = len(tokens)
            names = {number: text for text, number in {**SPECIALS, **TAGS}.items()}
            self.prompts.append("".join(names.get(token) or chr(token) for token in tokens))
        self._longest = list(tokens)
        written = bytes(token for token in tokens[self._start :] if token < 256)
        text, done = self._text, len(written)
        if self._until and self._until in written:
            text, done = self._then, len(written.partition(self._until)[2])
        return text[done] if done < len(text) else EOS


Make = Callable[..., LoadedModel]


@pytest.fixture
def load() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(script: Callable[[Sequence[int]], int] | str, template: str, *, specials: bool = False) -> LoadedModel:
            def backend() -> ScriptedBackend:
                made = ScriptedBackend(say(script) if isinstance(script, str) else script, context_length=2048)
                if specials:
                    made.tell(special_tokens={**SPECIALS, **TAGS})
                return made

            model = stack.enter_context(scripted_model(backend, template=None))
            return stack.enter_context(load_model(model, template=template))

        yield make


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("qwen3", "<think>\nBecause of that.\n</think>\n\nSo."),
        ("deepseek-r1", "Because of that.\n</think>\n\nSo."),
        ("rwkv-g1-think", ">\nBecause of that.\n</think>\nSo."),
    ],
)
def test_the_thought_is_apart(load, template, said):
    answer = load(said, template).generate(QUESTION, temperature=0)
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("Because of that.", "So.", "stop")
    assert answer.usage.reasoning_tokens == said.index("</think>") + len("</think>")
    assert answer.usage.completion_tokens == len(said) + 1
    assert bytes(answer.token_ids[:-1]).decode() == said


def test_tags_that_are_special_tokens(load):
    model = load(Wanting("x"), "qwen3", specials=True)
    rendered = model.preview([Message("user", QUESTION)], thinking=False)
    assert [token.id for token in rendered.tokens if token.origin == "marker"][-2:] == list(TAGS.values())
    answer = [TAGS["<think>"], *b"Hm.", TAGS["</think>"], *b"So.", EOS]
    starts: list[int] = []

    def say_tokens(tokens: Sequence[int]) -> int:
        if not starts:
            starts.append(len(tokens))
        return answer[len(tokens) - starts[0]]

    completion = load(say_tokens, "qwen3", specials=True).generate(QUESTION, temperature=0)
    assert (completion.reasoning, completion.text) == ("Hm.", "So.")
    assert completion.usage.reasoning_tokens == 5


def test_a_stream_adds_up(load):
    model = load("<think>\nHm, é.\n</think>\n\nSo, ü.", "qwen3")
    stream = model.stream(QUESTION, temperature=0)
    events = list(stream)
    answer = stream.result()
    assert "".join(event.reasoning for event in events) == answer.reasoning == "Hm, é."
    assert "".join(event.text for event in events) == answer.text == "So, ü."
    assert len(events) == answer.usage.completion_tokens
    kinds = ["reasoning" if event.reasoning else "text" for event in events if event.reasoning or event.text]
    assert kinds == sorted(kinds), "the thought comes first"


def test_a_stream_adds_up_async(load):
    async def read() -> tuple[str, str]:
        stream = await load("<think>a b</think>c d", "qwen3").asubmit(QUESTION, temperature=0)
        events = [event async for event in stream]
        return "".join(event.reasoning for event in events), "".join(event.text for event in events)

    assert asyncio.run(read()) == ("a b", "c d")


def test_models_that_do_not_think_are_left_alone(load):
    said = "<think>\nHm.\n</think>\n\nSo."
    answer = load(said, "chatml").generate(QUESTION, temperature=0)
    assert (answer.text, answer.reasoning, answer.usage.reasoning_tokens) == (said, "", 0)
    assert load(said, "chatml").generate(QUESTION, temperature=0, thinking=False).text == said


def test_to_think_where_the_template_cannot_is_an_error_that_names_those_that_can(load):
    model = load("x", "vicuna-v1.1")
    with pytest.raises(UnsupportedFeature, match=r"'vicuna-v1.1' do not think.*deepseek-r1, qwen3, rwkv-g1"):
        model.generate(QUESTION, thinking=True)
    with pytest.raises(UnsupportedFeature):
        model.count_tokens(QUESTION, thinking=True)


@pytest.mark.parametrize("bad", [{"max_thinking_tokens": -1}, {"max_thinking_tokens": "x"}, {"thinking": "maybe"}])
def test_wrong_values_are_refused(load, bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        load("x", "qwen3").generate(QUESTION, **bad)


def test_a_user_cannot_open_a_thought(load):
    """Only the template's own text does."""
    script = Wanting("So.")
    model = load(script, "chatml")
    assert model.generate("<think>\n", temperature=0).text == "So."
    answer = load(Wanting("So."), "qwen3").generate("Why? <think>\n", temperature=0)
    assert (answer.reasoning, answer.text) == ("", "So.")


def test_qwen3_is_switched_off_by_its_template(load):
    script = Wanting("So.")
    model = load(script, "qwen3")
    answer = model.generate(QUESTION, thinking=False, temperature=0)
    assert (answer.text, answer.usage.reasoning_tokens) == ("So.", 0)
    model.generate(QUESTION, thinking=True, temperature=0)
    model.generate(QUESTION, temperature=0)
    ends = ["assistant\n<think>\n\n</think>\n\n", "assistant\n", "assistant\n"]
    assert [prompt.endswith(end) for prompt, end in zip(script.prompts, ends, strict=True)] == [True] * 3
    assert model.count_tokens(QUESTION, thinking=False) - model.count_tokens(QUESTION) == len("<think>\n\n</think>\n\n")
    assert model.render(QUESTION, thinking=False).endswith("</think>\n\n")


def test_rwkv_is_switched_by_another_template(load):
    script = Wanting(">\nHm.\n</think>\nSo.")
    model = load(script, "rwkv-g1")
    answer = model.generate(QUESTION, thinking=True, temperature=0)
    assert (answer.reasoning, answer.text) == ("Hm.", "So.")
    plain = Wanting(" So.")
    thinker = load(plain, "rwkv-g1-think")
    assert thinker.generate(QUESTION, thinking=False, temperature=0).text == " So."
    assert script.prompts[0].endswith("Assistant: <think")
    assert plain.prompts[0].endswith("Assistant:")


def test_without_a_switch_the_thought_is_closed_at_once(load):
    model = load(Wanting("Hm, well", until="</think>\n\n", then="So."), "deepseek-r1")
    answer = model.generate(QUESTION, thinking=False, temperature=0)
    assert (answer.reasoning, answer.text) == ("", "So.")
    assert bytes(answer.token_ids[:-1]) == b"\n</think>\n\nSo."


@pytest.mark.parametrize("most", [0, 1, 5])
def test_a_thought_is_bounded(load, most):
    model = load(Wanting("Hmmmmmmmmmmmmm", until="</think>\n\n", then="So."), "deepseek-r1")
    answer = model.generate(QUESTION, max_thinking_tokens=most, temperature=0)
    assert (answer.reasoning, answer.text) == ("Hmmmmmmmmmm"[:most], "So.")
    assert answer.usage.reasoning_tokens == most + len("\n</think>")


def test_a_thought_that_the_model_opens_is_bounded(load):
    model = load(Wanting("<think>\nHmmmm", until="</think>\n\n", then="So."), "qwen3", specials=False)
    answer = model.generate(QUESTION, max_thinking_tokens=3, temperature=0)
    assert (answer.reasoning, answer.text) == ("Hm", "So.")


def test_a_bound_closes_with_the_vocabularys_own_tag(load):
    model = load(Wanting("Hmmmm"), "deepseek-r1", specials=True)
    answer = model.generate(QUESTION, max_thinking_tokens=2, temperature=0, max_tokens=8)
    assert answer.token_ids[:6] == (*b"Hm\n", TAGS["</think>"], *b"\n\n")


def test_a_bound_holds_at_any_temperature_and_whatever_the_penalties(load):
    for seed in range(5):
        answer = load(Wanting("Hmmmmmmmm"), "deepseek-r1").generate(
            QUESTION, max_thinking_tokens=4, max_tokens=40, temperature=0.5, seed=seed, presence_penalty=2.0, top_k=0
        )
        assert bytes(answer.token_ids[4:15]) == b"\n</think>\n\n"


def test_a_cut_within_the_thought(load):
    answer = load("Hm, well", "deepseek-r1").generate(QUESTION, max_tokens=4, temperature=0)
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("Hm,", "", "length")
    assert answer.usage.reasoning_tokens == 4


def test_an_end_within_the_thought(load):
    answer = load("Hm.", "deepseek-r1").generate(QUESTION, temperature=0)
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("Hm.", "", "stop")


def test_stop_strings_count_in_the_answer(load):
    answer = load("Hm. END\n</think>\n\nSo. END of", "deepseek-r1").generate(QUESTION, stop="END", temperature=0)
    assert (answer.reasoning, answer.text, answer.stop_match) == ("Hm. END", "So. ", "END")


def test_stop_strings_of_the_template_count_in_the_thought(load):
    answer = load(">Hm.\n\nUser: And?", "rwkv-g1-think").generate(QUESTION, temperature=0)
    assert (answer.reasoning, answer.text, answer.stop_match) == ("Hm.", "", "\n\nUser:")


def test_logprobs_are_one_for_each_token(load):
    said = "<think>\nHm.\n</think>\n\nSo."
    stream = load(said, "qwen3").stream(QUESTION, logprobs=True, top_logprobs=2, temperature=0)
    events = list(stream)
    answer = stream.result()
    assert len(answer.token_logprobs) == len(answer.top_logprobs) == len(answer.token_ids) == len(events)
    assert b"".join(event.data for event in events[:-1]).decode() == said
    assert [event.logprob for event in events] == list(answer.token_logprobs)


def test_logprobs_of_forced_tokens_are_the_models(load):
    answer = load(Wanting("Hmmm", until="</think>\n\n", then="So."), "deepseek-r1").generate(
        QUESTION, max_thinking_tokens=1, logprobs=True, top_logprobs=1, temperature=0
    )
    assert len(answer.token_logprobs) == len(answer.token_ids)
    own, likely = answer.token_logprobs[1], answer.top_logprobs[1][0]
    assert likely.data == b"m"
    assert own < likely.logprob


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}, "required": ["n"]}


@pytest.mark.parametrize("template", ["deepseek-r1", "rwkv-g1-think"])
def test_a_schema_governs_what_follows_the_thought(load, template):
    opened, behind = (">", "") if template == "rwkv-g1-think" else ("", "\n\n")
    model = load(Wanting(opened + "Not JSON {.\n</think>", until="</think>", then=behind + '{"n": 7}'), template)
    answer = model.generate(QUESTION, schema=SCHEMA, temperature=0)
    assert answer.reasoning == "Not JSON {."
    assert json.loads(answer.text) == {"n": 7}


def test_a_schema_where_the_model_opens_the_thought(load):
    """The engine opens it, so that it is certain; and not at all where none is wanted."""
    script = Wanting("<think>\nHm.\n</think>", until="</think>", then='\n\n{"n": 7}')
    model = load(script, "qwen3")
    answer = model.generate(QUESTION, schema=SCHEMA, temperature=0)
    assert (answer.reasoning, json.loads(answer.text)) == ("Hm.", {"n": 7})
    assert bytes(answer.token_ids).startswith(b"<think>\nHm.\n</think>\n\n{")
    off = load(Wanting('{"n": 8}'), "qwen3").generate(QUESTION, schema=SCHEMA, thinking=False, temperature=0)
    assert (off.reasoning, json.loads(off.text), off.usage.reasoning_tokens) == ("", {"n": 8}, 0)
    g1 = load(Wanting('{"n": 8}'), "rwkv-g1").generate(QUESTION, schema=SCHEMA, temperature=0)
    assert (g1.reasoning, json.loads(g1.text)) == ("", {"n": 8})


def test_an_end_within_a_thought_does_not_end_a_constrained_answer(load):
    model = load(Wanting("Hm.", until="</think>", then='\n\n{"n": 7}'), "deepseek-r1")
    answer = model.generate(QUESTION, schema=SCHEMA, temperature=0)
    assert (answer.reasoning, json.loads(answer.text), answer.finish_reason) == ("Hm.", {"n": 7}, "stop")


def test_every_constrained_answer_fits_whatever_the_thought(load):
    """Noise instead of a model: the bound closes the thought, the mask writes the answer."""

    def noise(tokens: Sequence[int]) -> int:
        return random.Random(zlib.crc32(bytes(str(list(tokens)), "ascii"))).randrange(256)

    for template in ("deepseek-r1", "qwen3", "rwkv-g1-think"):
        model = load(noise, template)
        for seed in range(10):
            answer = model.generate(QUESTION, schema=SCHEMA, max_thinking_tokens=9, seed=seed, temperature=1.5)
            assert set(json.loads(answer.text)) == {"n"}
            assert answer.usage.reasoning_tokens > 0


def test_a_constrained_answer_that_is_cut_within_the_thought_says_so(load):
    with pytest.raises(AnswerCut) as caught:
        load("Hm, well, so", "deepseek-r1").generate(QUESTION, schema=SCHEMA, max_tokens=6, temperature=0)
    assert caught.value.completion.reasoning == "Hm, we"


def test_choices_and_white_space_of_a_regex(load):
    model = load(Wanting("Hm.\n</think>", until="</think>", then="\n\n yes"), "deepseek-r1")
    assert model.generate(QUESTION, regex=" (yes|no)", temperature=0).text == " yes"
    assert model.generate(QUESTION, choices=["no", "yes"], temperature=0).text in ("no", "yes")


TOOL = Tool("price", "", {"type": "object", "properties": {"item": {"type": "string", "maxLength": 8}}})


@pytest.mark.parametrize("choice", ["required", "price", "auto"])
@pytest.mark.parametrize("template", ["qwen3", "deepseek-r1", "rwkv-g1-think"])
def test_tools_are_called_behind_the_thought(load, template, choice):
    call = '<tool_call>\n{"name": "price", "arguments": {"item": "ham"}}\n</tool_call>'
    opening, behind = {"qwen3": ("<think>\n", "\n\n"), "rwkv-g1-think": (">", "")}.get(template, ("", "\n\n"))
    model = load(Wanting(opening + "I ask.\n</think>", until="</think>", then=behind + call), template)
    answer = model.generate(QUESTION, tools=[TOOL], tool_choice=choice, temperature=0)
    assert (answer.reasoning, answer.text) == ("I ask.", call)


def test_thoughts_share_a_batch(load):
    model = load(Wanting("Hmmmmmmm", until="</think>\n\n", then="So."), "deepseek-r1")
    alone = model.generate(QUESTION, max_thinking_tokens=3, temperature=0)

    def script(tokens: Sequence[int]) -> int:
        written = bytes(token for token in tokens if token < 256).rpartition(b"<think>\n")[2]
        thought, tag, answer = written.partition(b"</think>\n\n")
        return (b"So."[len(answer)] if len(answer) < 3 else EOS) if tag else ord("m" if thought else "H")

    batched = load(script, "deepseek-r1")
    prompts = [f"{QUESTION} {number}" for number in range(12)]
    answers = batched.generate_many(prompts, max_thinking_tokens=3, temperature=0)
    assert (
        {(answer.reasoning, answer.text) for answer in answers} == {(alone.reasoning, alone.text)} == {("Hmm", "So.")}
    )
    assert batched.stats().steps < 12 * len(alone.token_ids)


def test_the_same_seed_thinks_the_same(load):
    def script(tokens: Sequence[int]) -> int:
        return 97 + zlib.crc32(bytes(str(list(tokens)), "ascii")) % 26

    model = load(script, "deepseek-r1")
    options = {"max_thinking_tokens": 6, "max_tokens": 40, "temperature": 1.5, "seed": 3}
    assert model.generate(QUESTION, **options).token_ids == model.generate(QUESTION, **options).token_ids


def test_a_thought_can_be_cancelled(load):
    model = load("Hm" * 500, "deepseek-r1")
    with model.stream(QUESTION, temperature=0, max_tokens=900) as stream:
        for event in stream:
            if event.reasoning:
                break
        stream.cancel()
        with pytest.raises(RequestCancelled):
            stream.result()


HISTORY = [Message("user", "a"), Message("assistant", "b", reasoning="hm"), Message("user", "c")]


@pytest.mark.parametrize("template", ["qwen3", "deepseek-r1", "rwkv-g1", "rwkv-g1-think", "chatml", "alpaca"])
def test_earlier_thoughts_are_left_out(load, template):
    model = load("x", template)
    assert model.render(HISTORY) == model.render([replace(message, reasoning="") for message in HISTORY])


def test_thoughts_between_calls_are_shown_where_the_template_does(load):
    call = Message("assistant", "", (ToolCall("1", "price", {"item": "ham"}),), reasoning="I ask.")
    turns = [Message("user", "a"), call, Message("tool", "3", name="price")]
    model = load("x", "qwen3")
    assert "<|im_start|>assistant\n<think>\nI ask.\n</think>\n\n<tool_call>" in model.render(turns)
    assert "I ask." not in model.render([*turns, Message("assistant", "3."), Message("user", "d")])
    assert "I ask." not in load("x", "deepseek-r1").render(turns)


def test_a_files_own_template_tells():
    assert format_in(find_template("chatml")[1].source) is None
    assert not format_in("{{ '</think>' }}").by_default
    assert format_in("{{ '</think>' if enable_thinking is defined }}").by_default
    assert not format_in("{% if not thinking is defined %}{% set thinking = false %}{% endif %}</think>").by_default
    assert not format_in("</think> a malformed {% one").by_default


def test_a_models_own_template_thinks():
    backend = ScriptedBackend(say("Hm.\n</think>\n\nSo."), context_length=2048)
    with scripted_model(backend, template="deepseek-r1") as path, load_model(path) as model:
        assert model.info.template == "from-file"
        assert model.info.thinks
        answer = model.generate(QUESTION, temperature=0)
    assert (answer.reasoning, answer.text) == ("Hm.", "So.")


def test_a_prompt_that_closes_an_empty_thought_has_none_to_come():
    """As those of models do that think when told to, and whose template reads the switch of those that do anyway."""
    backend = ScriptedBackend(Wanting('{"n": 7}'), context_length=2048)
    backend.tell(
        chat_template="{{ messages[0].content }}{{ '' if enable_thinking else '<think>\\n\\n</think>\\n\\n' }}"
    )
    with scripted_model(backend, template=None) as path, load_model(path) as model:
        answer = model.generate(QUESTION, schema=SCHEMA, temperature=0)
    assert (json.loads(answer.text), answer.usage.reasoning_tokens) == ({"n": 7}, 0)


def test_a_thought_in_a_conversation_that_loses_turns(load):
    turns = [Message("user", "a" * 500), Message("assistant", "b" * 500)] * 3 + [Message("user", QUESTION)]
    answer = load("Hm.\n</think>\n\nSo.", "deepseek-r1").generate(
        turns, context_overflow="drop_oldest", temperature=0, max_tokens=100
    )
    assert answer.dropped_messages
    assert (answer.reasoning, answer.text) == ("Hm.", "So.")
