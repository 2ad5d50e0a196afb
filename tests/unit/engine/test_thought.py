"""A thought told apart from its answer, byte by byte."""

from __future__ import annotations

import itertools

import pytest

from local_llms.engine.answer import Answer, Said
from local_llms.engine.thought import Thinking, Thought

OPEN, CLOSE = b"<think>", b"</think>"


def spelled(text: str) -> tuple[tuple[int, bytes], ...]:
    return tuple((byte, bytes([byte])) for byte in text.encode())


def thinking(**options: object) -> Thinking:
    """One whose tokens are bytes; the model opens it."""
    given = {"opening": OPEN, "begun": False, "before": spelled("\n"), "behind": spelled("\n\n"), **options}
    return Thinking(closing=CLOSE, close_with=spelled("</think>"), **given)


OPENED = {"opening": b"", "begun": True}


def read(
    pieces: list[bytes], form: Thinking | None, *, stop: tuple[str, ...] = (), trims: bool = False, exact: bool = False
) -> tuple[str, str, Answer]:
    """Thought and text of an answer that comes in these pieces, as tokens beyond those that are bytes."""
    answer = Answer(form, stop, trims=trims, exact=exact)
    said = []
    for number, piece in enumerate(pieces, start=1000):
        said.append(answer.push(number, piece))
        if answer.stop_match is not None:
            break
    else:
        said.append(answer.finish())
    return "".join(one.reasoning for one in said), "".join(one.text for one in said), answer


def cut(data: bytes, places: tuple[int, ...]) -> list[bytes]:
    ends = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


CASES = {
    "opened by the model": ("<think>\nHm, é.\n</think>\n\nYes, ü.", {}, "Hm, é.", "Yes, ü."),
    "opened by the prompt": ("\nHm.\n\nAh.\n</think>\n\nYes.", OPENED, "Hm.\n\nAh.", "Yes."),
    "begun by the prompt": (">\nHm.</think>Yes.", {"opening": b">", "begun": True}, "Hm.", "Yes."),
    "begun, and not completed": ("ing hard</think> Yes.", {"opening": b">", "begun": True}, "ing hard", "Yes."),
    "empty": ("<think>\n\n</think>\n\nYes.", {}, "", "Yes."),
    "white space in front": (" \n<think>Hm.</think>Yes.", {}, "Hm.", "Yes."),
    "none": ("Yes, <think>no</think>.", {}, "", "Yes, <think>no</think>."),
    "none, white space in front": ("\n Yes.", {}, "", "\n Yes."),
    "nearly none": ("<thin", {}, "", "<thin"),
    "not closed": ("<think>Hm, no e", {}, "Hm, no e", ""),
    "not closed, by a part of the tag": ("<think>Hm.\n</thi", {}, "Hm.\n</thi", ""),
    "parts of tags within": (
        "<think>a </think b </ c <think> d</think>e</think>f",
        {},
        "a </think b </ c <think> d",
        "e</think>f",
    ),
    "white space within": ("<think> a \n\n b \n</think>c ", {}, "a \n\n b", "c "),
}


@pytest.mark.parametrize(("text", "options", "reasoning", "answer"), CASES.values(), ids=CASES)
def test_the_tokens_do_not_matter(text, options, reasoning, answer):
    """However an answer is cut into tokens, what it thinks and says is the same."""
    data = text.encode()
    for count in (0, 1, 2):
        for places in itertools.combinations(range(1, len(data)), count):
            assert read(cut(data, places), thinking(**options))[:2] == (reasoning, answer), places
    assert read(cut(data, tuple(range(1, len(data)))), thinking(**options))[:2] == (reasoning, answer)


def test_what_is_certain_is_handed_out_at_once():
    answer = Answer(thinking(), (), trims=False, exact=False)
    said = [answer.push(1000, piece) for piece in (b"<think>", b"\nHm", b" ", b"so</th", b"ink", b">\n\n", b"Yes")]
    assert [one.reasoning for one in said] == ["", "Hm", "", " so", "", "", ""]
    assert [one.text for one in said] == ["", "", "", "", "", "", "Yes"]
    assert answer.push(1000, b"!") == Said(text="!")


def test_tokens_of_the_thought_are_counted_with_its_tags():
    pieces = [b"<think>", b"\nHm", b".", b"</think>", b"\n\n", b"Yes", b"."]
    assert read(pieces, thinking())[2].reasoning_tokens == 4
    assert read([b"<thin", b"ner", b"!"], thinking())[2].reasoning_tokens == 0
    assert read([b"Yes"], None)[2].reasoning_tokens == 0


def test_special_tokens_that_are_tags_without_text():
    form = thinking(tags={7: OPEN, 8: CLOSE})
    answer = Answer(form, (), trims=False, exact=False)
    said = [answer.push(*token) for token in ((7, b""), (1000, b"Hm"), (9, b""), (8, b""), (1000, b"Yes"), (8, b""))]
    assert "".join(one.reasoning for one in said) == "Hm"
    assert "".join(one.text for one in said) == "Yes"


def test_a_stop_string_of_the_caller_counts_in_the_answer_alone():
    pieces = [b"<think>", b"END of it", b"</think>", b"Yes.", b" END no"]
    reasoning, text, answer = read(pieces, thinking(), stop=("END",))
    assert (reasoning, text, answer.stop_match) == ("END of it", "Yes. ", "END")


def test_a_stop_string_of_the_template_counts_in_the_thought_too():
    pieces = [b"<think>", b"Hm.\n\nUs", b"er: no", b"</think>"]
    reasoning, text, answer = read(pieces, thinking(stop=("\n\nUser:",)), stop=("\n\nUser:",))
    assert (reasoning, text, answer.stop_match) == ("Hm.", "", "\n\nUser:")


def test_a_trimmed_answer_is_trimmed_with_and_without_a_thought():
    assert read([b"<think>a</think> ", b" b"], thinking(), trims=True)[1] == "b"
    assert read([b" ", b" b"], thinking(), trims=True)[1] == "b"


def write(thought: Thought, wants: bytes) -> bytes:
    """What comes where a model wants these bytes: a byte a token, but for what has to come."""
    written = b""
    left = list(wants)
    while left or thought.forced:
        byte = thought.forced[0] if thought.forced else left.pop(0)
        byte = thought.settle(byte, bytes([byte]), ends=False)
        thought.push(byte, bytes([byte]))
        written += bytes([byte])
    return written


@pytest.mark.parametrize("exact", [False, True])
def test_a_bound_closes_the_thought(exact):
    for most in range(8):
        thought = Thought(thinking(**OPENED, most=most), exact=exact)
        assert write(thought, b"abcdefgh")[:most] == b"abcdefgh"[:most]
        assert thought.closed
        assert thought.tokens == most + len("\n</think>")
    thought = Thought(thinking(**OPENED, most=4), exact=exact)
    assert write(thought, b"abcdefgh") == b"abcd\n</think>\n\nefgh"


def test_a_bound_counts_from_the_opening_tag_on():
    assert write(Thought(thinking(most=2), exact=False), b" <think>abcd") == b" <think>ab\n</think>\n\ncd"
    assert write(Thought(thinking(most=0), exact=False), b"<think>ab") == b"<think>\n</think>\n\nab"
    begun = thinking(opening=b">", begun=True, most=0)
    assert write(Thought(begun, exact=False), b">ab") == b">\n</think>\n\nab"
    assert write(Thought(thinking(most=0), exact=False), b"none") == b"none"


@pytest.mark.parametrize(
    ("wants", "comes"),
    [
        (b"a\n", b"a\n</think>\n\n"),
        (b"\n<", b"\n</think>\n\n"),
        (b"</", b"</think>\n\n"),
        (b"a<b", b"a<b\n</think>\n\n"),
    ],
)
def test_a_tag_that_is_begun_is_only_completed(wants, comes):
    assert write(Thought(thinking(**OPENED, most=len(wants)), exact=False), wants) == comes


def test_a_thought_within_its_bound_is_left_alone():
    assert write(Thought(thinking(**OPENED, most=12), exact=False), b"abc</think>defghijkl") == b"abc</think>defghijkl"


def test_an_exact_answer_begins_behind_what_stands_behind_the_tag():
    thought = Thought(thinking(**OPENED), exact=True)
    assert write(thought, b"abc</think>") == b"abc</think>\n\n"
    assert thought.over


def test_an_exact_answer_takes_white_space_behind_the_tag_as_it_comes():
    thought = Thought(thinking(**OPENED), exact=True)
    assert thought.push(1000, b"abc</think>\n") == (b"abc", b"")
    assert thought.over


def test_an_exact_answer_does_not_begin_within_the_last_token_of_the_tag():
    thought = Thought(thinking(**OPENED), exact=True)
    thought.push(1000, b"abc</th")
    assert thought.settle(1001, b'ink>{"', ends=False) == ord("i")
    assert bytes(thought.forced) == b"ink>\n\n"
    thought = Thought(thinking(**OPENED), exact=True)
    assert thought.settle(1001, b'abc</think>{"', ends=False) == ord("\n")
    assert bytes(thought.forced) == b"\n</think>\n\n"
    thought = Thought(thinking(**OPENED), exact=True)
    for byte in b"abc</think":
        thought.push(byte, bytes([byte]))
    assert thought.settle(1001, b'>{"', ends=False) == ord(">")
    assert bytes(thought.forced) == b">\n\n"
    assert Thought(thinking(**OPENED), exact=True).settle(1001, b"</think> \n", ends=False) == 1001
    assert Thought(thinking(**OPENED), exact=False).settle(1001, b"</think>{", ends=False) == 1001


def test_an_exact_answer_does_not_end_within_the_thought():
    thought = Thought(thinking(**OPENED), exact=True)
    thought.push(1000, b"abc")
    assert thought.settle(5, b"", ends=True) == ord("\n")
    assert bytes(thought.forced) == b"\n</think>\n\n"
    assert Thought(thinking(**OPENED), exact=False).settle(5, b"", ends=True) == 5


def test_an_exact_answer_is_opened_by_the_engine():
    form = thinking(open_with=tuple(b"<think>\n"))
    assert write(Thought(form, exact=True), b"abc</think>x") == b"<think>\nabc</think>\n\nx"
