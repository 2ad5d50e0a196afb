"""Architectures of the library, with random weights: packed, each gives what it gives by itself."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
library = pytest.importorskip("transformers", reason="transformers is not installed")

from local_llms import DollyLLM, load_model  # noqa: E402 - after the check that the libraries are there
from local_llms.backends import transformers  # noqa: E402
from local_llms.backends.base import Chunk, LoadOptions  # noqa: E402
from local_llms.backends.transformers import building  # noqa: E402
from local_llms.backends.transformers.verify import TESTED  # noqa: E402
from local_llms.errors import OptionError, UnsupportedFeature  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
GPT: dict[str, Any] = {"vocab_size": 260, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: library.LlamaConfig(**SIZES),
    "mistral": lambda: library.MistralConfig(**SIZES, sliding_window=6),
    "qwen2": lambda: library.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3": lambda: library.Qwen3Config(**SIZES, head_dim=8),
    "gemma": lambda: library.GemmaConfig(**SIZES, head_dim=8),
    "gemma2": lambda: library.Gemma2Config(**SIZES, head_dim=8, sliding_window=5, attn_logit_softcapping=0.5),
    "gemma3_text": lambda: library.Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "smollm3": lambda: library.SmolLM3Config(**SIZES),
    "phi3": lambda: library.Phi3Config(**SIZES),
    "glm": lambda: library.GlmConfig(**SIZES, head_dim=8),
    "glm4": lambda: library.Glm4Config(**SIZES, head_dim=8),
    "gpt_neox": lambda: library.GPTNeoXConfig(**{**SIZES, "num_key_value_heads": 4}),
    "gptj": lambda: library.GPTJConfig(**GPT, rotary_dim=4),
    "codegen": lambda: library.CodeGenConfig(**GPT, rotary_dim=4),
    "gpt2": lambda: library.GPT2Config(**GPT),
    "mixtral": lambda: library.MixtralConfig(**SIZES, num_local_experts=2, sliding_window=None),
    "olmo2": lambda: library.Olmo2Config(**SIZES),
    "stablelm": lambda: library.StableLmConfig(**SIZES),
}
"""One of each kind; the last ones are checked at loading, since no list names them."""


def write(folder: Path, config: Any) -> Any:
    """A checkpoint with random weights and a byte vocabulary; the library's model of it."""
    torch.manual_seed(1)
    with contextlib.redirect_stderr(io.StringIO()):
        model = library.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1)
        model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def write_tokenizer(folder: Path, extra: tuple[str, ...] = ()) -> None:
    from local_llms.backends.transformers.pieces import byte_alphabet

    vocab = {sign: 4 + byte for sign, byte in byte_alphabet().items()}
    added = ["<|endoftext|>", *extra]
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for number, text in enumerate(added)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_as_alone(name: str, tmp_path: Path) -> None:
    model = write(tmp_path, CONFIGS[name]())
    backend = transformers.load(tmp_path, LoadOptions(threads=1, max_parallel=4, cache_tokens=256))
    assert backend.info.architecture == name
    texts = [backend.tokenize(text) for text in ("A first one, longer than the others.", "Two", "The third of them")]
    with torch.inference_mode():
        expected = [model(torch.tensor([ids]), use_cache=False).logits[0].numpy() for ids in texts]
    # All in pieces: beginnings together, then single tokens beside what is left of the longest.
    found: list[list[np.ndarray]] = [[], [], []]
    held = [0, 0, 0]
    for sizes in ((9, 2, 5), (1, 1, 1), (30, 0, 1), (0, 0, 30)):
        chunks = [
            Chunk(number, held[number], ids[held[number] : held[number] + size], "all")
            for number, (ids, size) in enumerate(zip(texts, sizes, strict=True))
            if size and ids[held[number] :]
        ]
        rows = backend.decode(chunks).copy()
        for chunk in chunks:
            found[chunk.sequence].append(rows[: len(chunk.tokens)])
            rows = rows[len(chunk.tokens) :]
            held[chunk.sequence] += len(chunk.tokens)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.concatenate(ours), theirs, atol=2e-4 * theirs.std())


def test_every_architecture_that_is_believed_is_tested() -> None:
    assert set(CONFIGS) >= TESTED


@pytest.mark.parametrize(
    "config",
    [
        lambda: library.BloomConfig(**GPT, hidden_size=32),
        lambda: library.MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, state_size=4),
        lambda: library.RwkvConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, context_length=64),
    ],
    ids=["bloom", "mamba", "rwkv"],
)
def test_what_cannot_be_driven_is_refused(config: Callable[[], Any], tmp_path: Path) -> None:
    write(tmp_path, config())
    with pytest.raises(UnsupportedFeature, match="GGUF"):
        transformers.load(tmp_path, LoadOptions(threads=1))


@pytest.mark.parametrize(
    "config",
    [
        lambda: library.MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, state_size=4),
        lambda: library.RwkvConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, context_length=64),
        lambda: library.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
        lambda: library.FalconH1Config(**SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1),
        lambda: library.RecurrentGemmaConfig(**SIZES, head_dim=8, lru_width=32, attention_window_size=8),
    ],
    ids=["mamba", "rwkv", "lfm2", "falcon_h1", "recurrent_gemma"],
)
def test_what_keeps_a_state_is_refused_before_its_weights_are_read(
    config: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, config())
    monkeypatch.setattr(building, "load_model", lambda *_, **__: pytest.fail("the weights were read"))
    with pytest.raises(UnsupportedFeature, match="something else than keys and values"):
        transformers.load(tmp_path, LoadOptions(threads=1))


def test_the_tokens_that_end_an_answer(tmp_path: Path) -> None:
    """All that generation_config.json, config.json and the tokenizer name; none that the network does not have."""
    write(tmp_path, CONFIGS["llama"]())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": 9}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8, 999]}))
    backend = transformers.load(tmp_path, LoadOptions(threads=1))
    assert backend.info.end_ids == {0, 7, 8, 9}
    assert backend.info.trained_context_length == 128


def test_an_untested_architecture_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local_llms.backends.transformers.attention import PackedAttention

    write(tmp_path, CONFIGS["olmo2"]())
    attend = PackedAttention.attend
    monkeypatch.setattr(
        PackedAttention,
        "attend",
        lambda self, layer, query, key, value, scale, **options: attend(
            self, layer, query, key, value, scale / 2, **options
        ),
    )
    with pytest.raises(UnsupportedFeature, match="side by side"):
        transformers.load(tmp_path, LoadOptions(threads=1))


def test_learned_positions_have_an_end(tmp_path: Path) -> None:
    write(tmp_path, CONFIGS["gpt2"]())
    with pytest.raises(OptionError, match="128"):
        transformers.load(tmp_path, LoadOptions(threads=1, context_length=129))
    backend = transformers.load(tmp_path, LoadOptions(threads=1, context_length=128))
    assert backend.decode([Chunk(0, 0, [5] * 128)]).shape == (1, 260)


def test_rotations_go_on(tmp_path: Path) -> None:
    write(tmp_path, CONFIGS["llama"]())
    backend = transformers.load(tmp_path, LoadOptions(threads=1, context_length=200))
    assert backend.decode([Chunk(0, 0, [5] * 200)]).shape == (1, 260)


@pytest.mark.parametrize(
    ("name", "markers"),
    [("gptj", ()), ("gpt_neox", ("### End", "### Instruction:", "### Response:\n"))],
    ids=["dolly 1", "dolly 2"],
)
def test_dolly_from_a_folder(name: str, markers: tuple[str, ...], tmp_path: Path) -> None:
    config = CONFIGS[name]()
    config.max_position_embeddings = 512
    write(tmp_path, config)
    write_tokenizer(tmp_path, markers)
    with load_model(tmp_path, family="dolly", threads=1) as model:
        assert model.info.architecture == name
        assert model.info.template == "dolly"
        prompt = model.render("Say ### End, please.")
        assert prompt.endswith("### Instruction:\nSay ### End, please.\n\n### Response:\n")
        assert model.generate("Say ### End, please.", temperature=0, max_tokens=5).usage.completion_tokens <= 5
    answer = DollyLLM(model=str(tmp_path), threads=1, max_tokens=5, temperature=0).invoke("Hello")
    assert "### End" not in answer
    from local_llms.llama_index import DollyLLM as IndexDolly

    assert IndexDolly(model=str(tmp_path), threads=1, max_tokens=5, temperature=0).complete("Hello").text == answer
