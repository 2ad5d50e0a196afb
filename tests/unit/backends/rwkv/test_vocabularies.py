"""Which vocabulary a model has, and that nothing else than torch-free code reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local_llms.backends import rwkv
from local_llms.backends.base import LoadOptions
from local_llms.backends.rwkv.greedy import END, WORLD_FILE, GreedyVocabulary, world_file, world_vocabulary
from local_llms.backends.rwkv.vocabulary import choose_vocabulary
from local_llms.errors import MissingDependency, ModelFileError
from tests.unit.backends.rwkv.checkpoints import make, write_pth

OPTIONS = LoadOptions(max_parallel=2, threads=1)


@pytest.fixture(scope="module")
def world() -> GreedyVocabulary:
    pytest.importorskip("rwkv")
    return world_vocabulary(world_file(Path("/nowhere")))


def test_the_longest_token_is_taken(world: GreedyVocabulary) -> None:
    table = GreedyVocabulary({**{byte: bytes((byte,)) for byte in range(256)}, 300: b"ab", 301: b"abcd"}, {})
    assert table.tokenize("abcd") == [301]
    assert table.tokenize("abc") == [300, 99]
    assert table.tokenize("xabcdab") == [120, 301, 300]
    assert table.tokenize("abcdabcd" * 3) == [301] * 6
    assert table.encode(b"\xff\xab") == [255, 171]


def test_it_is_what_the_package_does(world: GreedyVocabulary) -> None:
    path = world_file(Path("/nowhere"))
    sys.path.insert(0, str(path.parent))
    try:
        from rwkv_tokenizer import TRIE_TOKENIZER
    finally:
        sys.path.remove(str(path.parent))
    theirs = TRIE_TOKENIZER(str(path))
    text = Path(__file__).read_text() + "Grüße, 日本語のテキスト。 👩‍👩‍👧 \t\r\n\n\n  x" * 20
    assert world.tokenize(text) == theirs.encode(text)


def test_the_end_is_no_text(world: GreedyVocabulary) -> None:
    assert world.special_tokens == {END: 0}
    assert world.end_ids == {0}
    assert 0 not in world.tokenize(END)
    assert b"".join(map(world.token_bytes, world.tokenize(END))).decode() == END
    assert world.token_bytes(0) == world.token_bytes(65535) == b""


def test_a_vocabulary_is_found_without_importing_torch() -> None:
    pytest.importorskip("rwkv")
    code = (
        "import sys; from pathlib import Path; from local_llms.backends.rwkv.vocabulary import choose_vocabulary\n"
        "vocabulary, why = choose_vocabulary(Path('x.pth'), 65536); print(len(vocabulary.tokenize('Hello')), why)\n"
        "assert not {'torch', 'rwkv', 'rwkv.model'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "RWKV World" in run.stdout


def test_without_the_package_the_file_may_lie_beside_the_weights(
    world: GreedyVocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(world_file(tmp_path), tmp_path)
    monkeypatch.setattr("local_llms.backends.rwkv.greedy.find_spec", lambda name: None)
    vocabulary, why = choose_vocabulary(tmp_path / "x.pth", 65536)
    assert vocabulary.tokenize("Hello world!") == world.tokenize("Hello world!")
    assert WORLD_FILE in why
    with pytest.raises(MissingDependency, match=r"local-llms\[rwkv\]"):
        choose_vocabulary(Path("/nowhere/x.pth"), 65536)


@pytest.mark.parametrize(
    "line", ["", "x 'a' 1", "1 'ab' 1", "1 __import__('os') 3", "1 'a'", "1 5 1", "1 'a' 1\n1 'b' 1", "2 'a' 1"]
)
def test_a_damaged_vocabulary(line: str, tmp_path: Path) -> None:
    path = tmp_path / WORLD_FILE
    path.write_text(line + "\n")
    with pytest.raises(ModelFileError, match=r"no vocabulary of RWKV"):
        world_vocabulary(path)


def test_a_model_of_the_pile_has_its_tokenizer_beside_it(data: Path, tmp_path: Path) -> None:
    tokenizer = data / "models/neox-stories/tokenizer.json"
    path = write_pth(tmp_path / "raven.pth", make("4", vocabulary=1100))
    with pytest.raises(ModelFileError, match=r"1100 tokens that it does not carry.*tokenizer\.json"):
        rwkv.load(path, OPTIONS)
    shutil.copy(tokenizer, tmp_path / "20B_tokenizer.json")
    backend = rwkv.load(path, OPTIONS)
    try:
        assert "20B_tokenizer.json" in backend.info.vocabulary
        ids = backend.tokenize("Once upon a time")
        assert b"".join(map(backend.token_bytes, ids)) == b"Once upon a time"
        assert backend.token_bytes(1099) == b""
    finally:
        backend.close()
    small = write_pth(tmp_path / "small.pth", make("4", vocabulary=300))
    with pytest.raises(ModelFileError, match="belongs to another model"):
        rwkv.load(small, OPTIONS)


def test_the_info_tells(tmp_path: Path) -> None:
    backend = rwkv.load(write_pth(tmp_path / "RWKV-x-ctx4096.pth", make("7")), OPTIONS)
    assert backend.info.vocabulary == "single bytes, since it has 256 tokens"
    assert backend.info.trained_context_length == 4096
    assert backend.info.name == "RWKV-x-ctx4096"
    backend.close()
