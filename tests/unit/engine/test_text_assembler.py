"""Bytes of tokens → text: whole characters, and nothing of a stop string, however the tokens cut them."""

import codecs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local_llms.engine.text import TextAssembler

CHARACTERS = ("é", "€", "語", "🙂", "👩‍🚀", "🇨🇭", "e\u0301")


def read(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    """The text of every token, the last of them with the end, and the stop string found."""
    assembler = TextAssembler(stop)
    texts = [assembler.push(piece) for piece in pieces]
    texts.append(assembler.finish())
    return texts, assembler.stop_match


def expected(data: bytes, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """The whole text, cut where the first stop string is complete; of several at one place, before the longest."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    for end in range(1, len(text) + 1):
        here = [one for one in stop if text[:end].endswith(one)]
        if here:
            longest = max(here, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize("character", CHARACTERS)
def test_a_character_comes_whole_wherever_it_is_cut(character: str) -> None:
    data = f"a{character}b".encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            texts, _ = read([data[:first], data[first:second], data[second:]])
            assert "".join(texts) == f"a{character}b"
            assert "\ufffd" not in "".join(texts)


def test_a_character_comes_with_its_last_byte() -> None:
    assert read([bytes([byte]) for byte in "語x".encode()])[0] == ["", "", "語", "x", ""]


def test_an_incomplete_character_at_the_end_is_left_out() -> None:
    assert read(["ab🙂".encode()[:-1]])[0] == ["ab", ""]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert "".join(read([b"a\xff", b"\xc3", b"b"])[0]) == "a\ufffd\ufffdb"


def test_no_part_of_a_stop_string_is_released_before_it_is_refuted() -> None:
    assert read([b"Hi", b"\nUs", b"er", b": no"], ("\nUser:",)) == (["Hi", "", "", "", ""], "\nUser:")
    assert read([b"Hi", b"\nUs", b"ed", b"."], ("\nUser:",)) == (["Hi", "", "\nUsed", ".", ""], None)


def test_what_was_held_back_comes_at_the_end() -> None:
    assert read([b"a ##"], ("###",)) == (["a ", "##"], None)


def test_a_stop_string_that_begins_inside_a_wrong_beginning_is_found() -> None:
    assert read([b"a", b"a", b"b"], ("ab",)) == (["", "a", "", ""], "ab")
    assert "".join(read([bytes([byte]) for byte in b"abababac"], ("ababac",))[0]) == "ab"


def test_text_after_a_stop_string_is_dropped() -> None:
    assembler = TextAssembler(("STOP",))
    assert assembler.push(b"one STOP two") == "one "
    assert assembler.push(b" three") == ""
    assert assembler.finish() == ""
    assert assembler.stop_match == "STOP"


def test_the_stop_string_that_is_complete_first_counts() -> None:
    # As one token and as three: "b" is complete before "abc" is.
    assert expected(b"xabc", ("abc", "b")) == ("xa", "b")
    assert "".join(read([b"xabc"], ("abc", "b"))[0]) == "xa"
    assert "".join(read([b"xa", b"b", b"c"], ("abc", "b"))[0]) == "xa"


def test_of_two_that_are_complete_together_the_longest_counts() -> None:
    for stops in (("END", "D"), ("D", "END")):
        texts, match = read([b"the END"], stops)
        assert ("".join(texts), match) == ("the ", "END")


def test_a_stop_string_may_lie_across_characters_of_several_bytes() -> None:
    texts, match = read([bytes([byte]) for byte in "好。終わり。".encode()], ("終わ",))
    assert ("".join(texts), match) == ("好。", "終わ")


@st.composite
def cut_bytes(draw: st.DrawFn) -> list[bytes]:
    data = draw(st.one_of(st.text("abé🙂#", max_size=30).map(str.encode), st.binary(max_size=20)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@settings(max_examples=600, deadline=None)
@given(pieces=cut_bytes(), stop=st.lists(st.text("abé🙂#", min_size=1, max_size=4), max_size=4).map(tuple))
@example(pieces=[b"ab", b"a"], stop=("ba", "aba"))
def test_any_cut_gives_the_whole_text_up_to_the_first_stop(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    texts, match = read(pieces, stop)
    text, expected_match = expected(b"".join(pieces), stop)
    assert ("".join(texts), match) == (text, expected_match)
    # What was released at any time stays true: it is a beginning of the answer, however the text goes on.
    for count in range(len(pieces)):
        released = "".join(texts[: count + 1])
        assert expected(b"".join(pieces[: count + 1]), stop)[0].startswith(released)


@pytest.mark.parametrize("pieces", [[b"\n", b" Yes", b"."], [b"\n \xe3\x80", b"\x80Yes", b"."], [b" \n Yes."]])
def test_white_space_at_the_beginning_may_be_left_out(pieces: list[bytes]) -> None:
    assembler = TextAssembler(("\n", "No"), trims=True)
    assert "".join(map(assembler.push, pieces)) + assembler.finish() == "Yes."
    assert assembler.stop_match is None
    assert assembler.push(b" And\n") == " And"
    assert assembler.stop_match == "\n"
