"""ChatGLM's vocabularies, on small ones of the same build."""

from __future__ import annotations

import base64
import importlib.util
import random
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")
pytest.importorskip("tokenizers")

from sentencepiece import SentencePieceProcessor

from local_llms.backends.base import BackendInfo
from local_llms.backends.transformers.chatglm.ice_vocabulary import IceVocabulary
from local_llms.backends.transformers.chatglm.rank_vocabulary import (
    SPECIAL_TOKENS,
    WORDS,
    RankVocabulary,
    read_ranks,
)
from local_llms.backends.transformers.chatglm.role_vocabulary import MASKS, ROLES, RoleVocabulary
from local_llms.catalog import find_template
from local_llms.errors import MissingDependency, ModelFileError
from local_llms.hub.folder_template import has_ranks
from local_llms.prompts import Segment, encode, render
from local_llms.types import Message
from tests.chatglm_files import ICE_MARKERS, WHITESPACE, write_pieces, write_ranks

CODE = "def main():\n    print('hello world')\t# greeting"


class Speaking:
    """A vocabulary as ``encode`` sees it."""

    def __init__(self, vocabulary: IceVocabulary | RoleVocabulary | RankVocabulary) -> None:
        self.tokenize = vocabulary.tokenize
        self.token_bytes = vocabulary.token_bytes
        self.info = BackendInfo(
            backend="test",
            architecture="chatglm",
            parameters=0,
            vocabulary_size=vocabulary.size,
            context_length=4096,
            trained_context_length=4096,
            cache_tokens=4096,
            max_sequences=1,
            batch_tokens=64,
            bos_id=vocabulary.bos_id,
            end_ids=vocabulary.end_ids,
            adds_bos=vocabulary.adds_bos,
            special_tokens=vocabulary.special_tokens,
            prompt_prefix=vocabulary.prompt_prefix,
            prompt_suffix=vocabulary.prompt_suffix,
        )


def said(vocabulary: IceVocabulary | RoleVocabulary | RankVocabulary, ids: list[int]) -> str:
    return b"".join(map(vocabulary.token_bytes, ids)).decode()


class TestIce:
    """ChatGLM-6B."""

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("ice") / "ice_text.model"
        write_pieces(path, 700, control=ICE_MARKERS, user=WHITESPACE)
        return path

    @pytest.fixture(scope="class")
    @classmethod
    def vocabulary(cls, path: Path) -> IceVocabulary:
        return IceVocabulary(path, 1)

    def test_whitespace_has_pieces_of_its_own(self, path: Path, vocabulary: IceVocabulary) -> None:
        """As upstream writes them into the text: a newline, four spaces, a tab."""
        processor = SentencePieceProcessor(model_file=str(path))
        expected = processor.encode("def main():<n><|blank_4|>print('hello world')<|tab|># greeting")
        assert vocabulary.tokenize(CODE) == expected
        pieces = [processor.id_to_piece(token) for token in expected]
        assert [piece for piece in pieces if piece in WHITESPACE] == ["<n>", "<|blank_4|>", "<|tab|>"]
        assert said(vocabulary, expected) == " " + CODE

    @pytest.mark.parametrize("length", [1, 2, 79, 80, 81, 160, 163])
    def test_runs_of_spaces(self, vocabulary: IceVocabulary, length: int) -> None:
        ids = vocabulary.tokenize("a" + " " * length + "b")
        assert said(vocabulary, ids) == " a" + " " * length + "b"
        longest = vocabulary.tokenize(" " * 80)[-1]
        assert ids.count(longest) == length // 80

    @pytest.mark.parametrize("text", ["<n>", "a<|tab|>b", "x <|blank_7|><n><n> y", "[gMASK]<sop>", "<|blank_80|>" * 3])
    def test_what_spells_a_piece_stays_text(self, vocabulary: IceVocabulary, text: str) -> None:
        ids = vocabulary.tokenize(text)
        assert said(vocabulary, ids) == " " + text
        assert not set(ids) & set(vocabulary.special_tokens.values())

    def test_prompts_end_with_the_mask_and_the_start(self, vocabulary: IceVocabulary) -> None:
        specials = vocabulary.special_tokens
        prompt = render(find_template("chatglm")[1], [Message("user", "你好 [gMASK]")])
        plain = vocabulary.tokenize("你好 [gMASK]")
        assert encode(prompt, Speaking(vocabulary)) == [*plain, specials["[gMASK]"], specials["<sop>"]]
        assert vocabulary.end_ids == {specials["<eop>"]}
        assert vocabulary.eos_text == "<eop>"

    def test_the_first_release_numbers_behind_images(self, path: Path, vocabulary: IceVocabulary) -> None:
        shifted = IceVocabulary(path, 20_001)
        assert shifted.tokenize("你好") == [token + 20_000 for token in vocabulary.tokenize("你好")]
        assert shifted.special_tokens["<sop>"] == 20_002
        assert shifted.size == vocabulary.size + 20_000
        assert shifted.token_bytes(5) == b""
        assert said(shifted, shifted.tokenize(CODE)) == " " + CODE

    def test_markers_that_are_user_defined_are_special_all_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "ice_text.model"
        write_pieces(path, 700, control=("[MASK]",), user=("[gMASK]", "<sop>", "<eop>", *WHITESPACE))
        vocabulary = IceVocabulary(path, None)
        for text in ("[gMASK]", "a<sop>b", "<eop><eop>"):
            ids = vocabulary.tokenize(text)
            assert not set(ids) & set(vocabulary.special_tokens.values())
            assert said(vocabulary, ids) == " " + text
        assert vocabulary.token_bytes(vocabulary.special_tokens["<sop>"]) == b""

    def test_a_model_that_normalizes(self, tmp_path: Path) -> None:
        """As the real one does: full-width punctuation becomes ordinary, a space at the end is dropped."""
        path = tmp_path / "ice_text.model"
        write_pieces(path, 700, control=ICE_MARKERS, user=WHITESPACE, nfkc=True)
        vocabulary = IceVocabulary(path, 1)
        assert said(vocabulary, vocabulary.tokenize("你好，我是 ")) == " 你好,我是"

    @pytest.mark.parametrize("lost", ["gmask", "start", "all"])
    def test_files_that_do_not_belong_together(self, tmp_path: Path, lost: str) -> None:
        path = tmp_path / "ice_text.model"
        markers = {"gmask": ("<sop>", "<eop>"), "start": ("[gMASK]", "<eop>"), "all": ("[MASK]",)}[lost]
        write_pieces(path, 600, control=markers)
        with pytest.raises(ModelFileError, match="one release"):
            IceVocabulary(path, 1)


class TestRoles:
    """ChatGLM2 and ChatGLM3."""

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("roles") / "tokenizer.model"
        write_pieces(path, 500)
        return path

    def test_special_tokens_follow_the_pieces(self, path: Path) -> None:
        count = SentencePieceProcessor(model_file=str(path)).get_piece_size()
        second, third = RoleVocabulary(path, roles=False), RoleVocabulary(path, roles=True)
        own = {"<unk>": 0, "<s>": 1, "</s>": 2}
        assert second.special_tokens == own | {text: count + place for place, text in enumerate(MASKS)}
        assert third.special_tokens == own | {text: count + place for place, text in enumerate((*MASKS, *ROLES))}
        assert (second.size, third.size) == (count + 5, count + 9)
        assert second.prompt_prefix == third.prompt_prefix == (count + 1, count + 3)
        assert second.end_ids == {2}
        assert third.end_ids == {2, count + 6, count + 8}

    def test_a_prompt_of_chatglm3_is_made_of_pieces(self, path: Path) -> None:
        """Upstream's ``build_single_message``: a role's marker, then a newline and the text, each by itself."""
        vocabulary, processor = RoleVocabulary(path, roles=True), SentencePieceProcessor(model_file=str(path))
        specials = vocabulary.special_tokens
        messages = [Message("user", "你好"), Message("assistant", "  Hello,\n<|user|>"), Message("user", "\nsop")]
        expected = [specials["[gMASK]"], specials["sop"]]
        for message in messages:
            expected += [specials[f"<|{message.role}|>"], *processor.encode("\n"), *processor.encode(message.content)]
        expected.append(specials["<|assistant|>"])
        assert encode(render(find_template("chatglm3")[1], messages), Speaking(vocabulary)) == expected

    def test_a_prompt_of_chatglm2_is_one_text(self, path: Path) -> None:
        vocabulary, processor = RoleVocabulary(path, roles=False), SentencePieceProcessor(model_file=str(path))
        ids = encode(render(find_template("chatglm2")[1], [Message("user", "你好")]), Speaking(vocabulary))
        assert ids == [*vocabulary.prompt_prefix, *processor.encode("[Round 1]\n\n问：你好\n\n答：")]

    def test_english_words_with_a_marker_in_them(self, path: Path) -> None:
        """ "people" has ChatGLM's marker eop in it."""
        vocabulary = RoleVocabulary(path, roles=True)
        ids = encode((Segment("sophisticated people", True),), Speaking(vocabulary))
        assert ids == [*vocabulary.prompt_prefix, *vocabulary.tokenize("sophisticated people")]


class TestRanks:
    """GLM-4."""

    RANKS = {bytes((byte,)): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258, b" w": 259}

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "tokenizer.model"
        write_ranks(path, self.RANKS)
        return path

    @pytest.fixture
    def vocabulary(self, path: Path) -> RankVocabulary:
        return RankVocabulary(read_ranks(path), {text: 260 + place for place, text in enumerate(SPECIAL_TOKENS)})

    def test_the_lowest_rank_merges_first(self, path: Path, vocabulary: RankVocabulary) -> None:
        assert has_ranks(path)
        assert vocabulary.tokenize("hello world") == [258, ord("o"), 259, *map(ord, "orld")]
        assert said(vocabulary, vocabulary.tokenize("hello 你好\n")) == "hello 你好\n"

    def test_special_tokens(self, vocabulary: RankVocabulary) -> None:
        assert vocabulary.prompt_prefix == (262, 264)
        assert vocabulary.end_ids == {260, 267, 269}
        for text in SPECIAL_TOKENS:
            ids = vocabulary.tokenize(text)
            assert max(ids) < 260
            assert said(vocabulary, ids) == text
            assert vocabulary.token_bytes(vocabulary.special_tokens[text]) == b""

    def test_a_prompt_of_glm4(self, vocabulary: RankVocabulary) -> None:
        ids = encode(render(find_template("glm4")[1], [Message("user", "\nhe")]), Speaking(vocabulary))
        assert ids == [262, 264, 267, ord("\n"), ord("\n"), 256, 268]

    def test_it_reads_a_large_vocabulary_as_tiktoken_does(self) -> None:
        """GLM-4's is not at hand; llama-index brings another of 100,256 tokens in the same format."""
        tiktoken = pytest.importorskip("tiktoken")
        spec = importlib.util.find_spec("llama_index.core")
        folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
        path = folder / "_static/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
        if not path.is_file():
            pytest.skip("llama-index brings no vocabulary of tiktoken here")
        ranks = read_ranks(path)
        vocabulary = RankVocabulary(ranks, {"<sop>": len(ranks)})
        reference = tiktoken.Encoding("test", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})
        chance = random.Random(3)
        signs = " \n\t\r'\"abcXYZ0123456789.,!?<|>你好世界áéß😀👩‍👩‍👧\u3000\0'LL'Ve"
        texts = [CODE, "word " * 500, *("".join(chance.choices(signs, k=chance.randint(1, 60))) for _ in range(2000))]
        for text in texts:
            assert vocabulary.tokenize(text) == reference.encode_ordinary(text), text

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"\nAg== 2\n", b"\n"),
            (b"\nAg== 2\n", b"\nAg== 3\n"),
            (b"\nAg== 2\n", b"\nAg==\n"),
            (b"\nAg== 2\n", b"\n?g== 2\n"),
            (b"\nAg== 2\n", b"\nAQ== 2\n"),
            (b"\nAg== 2\n", b"\nAg== " + b"9" * 5000 + b"\n"),
            (b"\nAg== 2\n", b"\nAg== \xc2\xb2\n"),
        ],
    )
    def test_damaged_lists(self, path: Path, old: bytes, new: bytes) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises(ModelFileError, match="line 3"):
            read_ranks(path)

    def test_a_list_that_is_cut_short(self, path: Path) -> None:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:100]))
        with pytest.raises(ModelFileError, match="156 of the 256 bytes"):
            read_ranks(path)

    def test_a_piece_model_is_no_list(self, tmp_path: Path) -> None:
        write_pieces(tmp_path / "tokenizer.model", 400)
        assert not has_ranks(tmp_path / "tokenizer.model")
        (tmp_path / "text").write_bytes(base64.b64encode(b"no rank"))
        assert not has_ranks(tmp_path / "text")


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pieces(tmp_path / "ice_text.model", 600, control=ICE_MARKERS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r'pip install "local-llms\[transformers\]"'):
        IceVocabulary(tmp_path / "ice_text.model", 1)


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ice_text.model"
    write_pieces(path, 600, control=ICE_MARKERS)
    data = path.read_bytes()
    chance = random.Random(8)
    for _ in range(60):
        kind = chance.randrange(3)
        if kind == 0:
            damaged = data[: chance.randrange(len(data))]
        elif kind == 1:
            damaged = bytes(chance.randrange(256) for _ in range(200))
        else:
            place = chance.randrange(len(data))
            damaged = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        path.write_bytes(damaged)
        try:
            IceVocabulary(path, 1).tokenize("hello <n> 你好")
        except ModelFileError:
            continue
        assert kind != 1, "noise was read as a model"
