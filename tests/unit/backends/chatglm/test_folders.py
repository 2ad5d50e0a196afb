"""Folders in ChatGLM's original layouts: what is claimed, what is read off them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

from safetensors.numpy import load_file, save_file

from local_llms import backends
from local_llms.about import describe
from local_llms.backends import transformers
from local_llms.backends.base import Backend, BackendInfo, Chunk, LoadOptions
from local_llms.backends.transformers.chatglm.glm_weights import glm_config
from local_llms.errors import ModelFileError, UnsupportedFeature
from local_llms.resolve import choose_template
from tests.chatglm_files import write_folder, write_pieces, write_ranks

OPTIONS = LoadOptions(context_length=32, cache_tokens=64, max_parallel=1, device="cpu", dtype="float32", threads=1)
ROWS, HIDDEN, INNER, HEADS, GROUPS, LAYERS = 560, 32, 48, 4, 2, 2


def later_config(**changes: Any) -> dict[str, Any]:
    config = {
        "_name_or_path": "THUDM/chatglm3-6b",
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "eos_token_id": 2,
        "ffn_hidden_size": INNER,
        "hidden_size": HIDDEN,
        "kv_channels": HIDDEN // HEADS,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": GROUPS,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "padded_vocab_size": ROWS,
        "rmsnorm": True,
        "seq_length": 128,
    }
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


def later_tensors(*, bias: bool = True, groups: int = GROUPS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)

    def array(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / 6).astype(np.float32)

    together = HIDDEN + 2 * groups * HIDDEN // HEADS
    tensors = {
        "transformer.embedding.word_embeddings.weight": array(ROWS, HIDDEN),
        "transformer.encoder.final_layernorm.weight": array(HIDDEN),
        "transformer.output_layer.weight": array(ROWS, HIDDEN),
    }
    for layer in (f"transformer.encoder.layers.{number}." for number in range(LAYERS)):
        tensors |= {
            f"{layer}input_layernorm.weight": array(HIDDEN),
            f"{layer}post_attention_layernorm.weight": array(HIDDEN),
            f"{layer}self_attention.query_key_value.weight": array(together, HIDDEN),
            f"{layer}self_attention.dense.weight": array(HIDDEN, HIDDEN),
            f"{layer}mlp.dense_h_to_4h.weight": array(2 * INNER, HIDDEN),
            f"{layer}mlp.dense_4h_to_h.weight": array(HIDDEN, INNER),
        }
        if bias:
            tensors[f"{layer}self_attention.query_key_value.bias"] = array(together)
    return tensors


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    write_pieces(path, 500)
    return path


@pytest.fixture
def later(tmp_path: Path, pieces: Path) -> Path:
    """A folder of ChatGLM3."""
    folder = write_folder(tmp_path / "model", later_config(), later_tensors())
    shutil.copy(pieces, folder)
    return folder


def info_of(folder: Path) -> BackendInfo:
    backend: Backend = transformers.load(folder, OPTIONS)
    backend.close()
    return backend.info


def change(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(("ratio", "theta"), [(None, 10_000.0), (50, 500_000.0), (500, 5_000_000.0)])
def test_longer_contexts_turn_more_slowly(tmp_path: Path, ratio: int | None, theta: float) -> None:
    """As modeling_chatglm.py has it: the base of the rotations times rope_ratio, of half of each head."""
    config = {**later_config(), **({} if ratio is None else {"rope_ratio": ratio})}
    rotary = glm_config(config, tmp_path / "config.json")["rope_parameters"]
    assert rotary == {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 0.5}


def test_what_is_claimed(later: Path, chatglm_folder: Path, tmp_path: Path) -> None:
    for folder in (later, chatglm_folder):
        module, reason = backends.choose(folder, None)
        assert (module.NAME, reason) == ("transformers", "it is a folder of ChatGLM's original layout")
    (later / "model.safetensors").unlink()
    with pytest.raises(ModelFileError):
        backends.choose(later, None)


def test_facts_of_the_first(chatglm_folder: Path) -> None:
    info = info_of(chatglm_folder)
    assert (info.architecture, info.template, info.trained_context_length) == ("chatglm", "chatglm", 256)
    about = describe(chatglm_folder)
    assert (about.architecture, about.template, about.trained_context_length) == ("chatglm", "chatglm", 256)
    assert (info.prompt_prefix, info.prompt_suffix, info.bidirectional_until) == ((), (1, 2), 2)
    assert info.end_ids == {3}
    assert not info.adds_bos
    assert info.parameters > 50_000


def test_facts_of_the_third(later: Path) -> None:
    info = info_of(later)
    specials = info.special_tokens
    assert (info.architecture, info.template, info.trained_context_length) == ("chatglm", "chatglm3", 128)
    assert info.prompt_prefix == (specials["[gMASK]"], specials["sop"])
    assert (info.prompt_suffix, info.bidirectional_until) == ((), None)
    assert info.end_ids == {2, specials["<|user|>"], specials["<|observation|>"]}
    assert info.vocabulary_size == ROWS


@pytest.mark.parametrize(
    ("named", "folder_name", "template"),
    [
        ("THUDM/chatglm2-6b", "model", "chatglm2"),
        ("THUDM/chatglm3-6b-32k", "model", "chatglm3"),
        ("THUDM/chatglm3-6b-base", "model", None),
        ("/home/somebody/trained", "my-chatglm2-tuned", "chatglm2"),
        (None, "ChatGLM3-6B", "chatglm3"),
        (None, "unnamed", None),
    ],
)
def test_the_second_and_the_third_are_told_by_name(
    later: Path, named: str | None, folder_name: str, template: str | None
) -> None:
    folder = later.rename(later.parent / folder_name)
    info = info_of(change(folder, _name_or_path=named))
    assert info.template == template
    assert describe(folder).template == template
    assert describe(folder, family="glm").template == (template or "chatglm3")
    assert ("<|user|>" in info.special_tokens) == (template != "chatglm2")
    chosen = choose_template(None, "glm", None, info)
    assert chosen is not None
    assert chosen.template.name == (template or "chatglm3")


def test_glm4_is_told_by_its_vocabulary(later: Path) -> None:
    write_ranks(later / "tokenizer.model", {bytes((byte,)): byte for byte in range(256)})
    declared = {str(300 + place): {"content": text} for place, text in enumerate(("[gMASK]", "<sop>", "<|user|>"))}
    (later / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": declared, "chat_template": "{{x}}"})
    )
    info = info_of(change(later, eos_token_id=[299, 302]))
    assert (info.template, info.prompt_prefix, info.chat_template) == ("glm4", (300, 301), "{{x}}")
    assert [describe(later, family=family).template for family in (None, "glm")] == ["from-file", "glm4"]
    assert info.end_ids == {299, 302}
    wrong = {"255": {"content": "[gMASK]"}}
    (later / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": wrong}))
    with pytest.raises(ModelFileError, match="ids of others"):
        info_of(later)


def test_code_in_the_folder_is_not_run(later: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    for name in ("configuration_chatglm.py", "modeling_chatglm.py", "tokenization_chatglm.py"):
        (later / name).write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    mapped = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "modeling_chatglm.X")
    change(later, auto_map=mapped, attn_implementation="somebody/kernel")
    (later / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_chatglm.X", None]}, "tokenizer_class": "X"})
    )
    info_of(later)
    assert not trace.exists()


def test_every_head_may_have_keys_of_its_own(tmp_path: Path, pieces: Path) -> None:
    config = later_config(multi_query_attention=False, multi_query_group_num=None, add_qkv_bias=False)
    folder = write_folder(tmp_path / "model", config, later_tensors(bias=False, groups=HEADS))
    shutil.copy(pieces, folder)
    assert info_of(folder).parameters > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"add_bias_linear": True},
        {"rmsnorm": False},
        {"post_layer_norm": False},
        {"apply_residual_connection_post_layernorm": True},
        {"original_rope": False},
        {"quantization_bit": 4},
    ],
)
def test_variants_that_cannot_be_run(later: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFeature):
        info_of(change(later, **changes))


def test_a_first_with_one_position_cannot_be_run(chatglm_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chatglm_folder, tmp_path / "copy"))
    with pytest.raises(UnsupportedFeature, match="position_encoding_2d"):
        info_of(change(folder, position_encoding_2d=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 3},
        {"num_layers": 0},
        {"num_layers": 1 << 40},
        {"num_layers": "two"},
        {"hidden_size": 64},
        {"hidden_size": -1},
        {"hidden_size": None},
        {"padded_vocab_size": None},
        {"padded_vocab_size": 100},
        {"padded_vocab_size": 1 << 23},
        {"multi_query_group_num": 3},
        {"multi_query_group_num": 4},
        {"kv_channels": 7},
        {"kv_channels": 16},
        {"ffn_hidden_size": 1 << 20},
        {"rope_ratio": "a"},
        {"rope_ratio": 0},
        {"layernorm_epsilon": -1},
        {"seq_length": None},
    ],
)
def test_configurations_that_do_not_fit(later: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError):
        info_of(change(later, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 4},
        {"num_attention_heads": 3},
        {"hidden_size": None},
        {"hidden_size": 64},
        {"inner_hidden_size": 1 << 20},
        {"vocab_size": 100},
        {"bos_token_id": 3},
        {"bos_token_id": None},
        {"gmask_token_id": 5},
        {"layernorm_epsilon": "x"},
        {"max_sequence_length": -5},
    ],
)
def test_configurations_of_the_first_that_do_not_fit(
    chatglm_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(chatglm_folder, tmp_path / "copy"))
    with pytest.raises(ModelFileError):
        info_of(change(folder, **changes))


def test_an_early_configuration_names_no_masks(chatglm_folder: Path, tmp_path: Path) -> None:
    """Then they are three and four ids in front of <sop>."""
    folder = Path(shutil.copytree(chatglm_folder, tmp_path / "copy"))
    write_pieces(
        folder / "ice_text.model", 500, control=("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>")
    )
    change(folder, gmask_token_id=None, mask_token_id=None, bos_token_id=5, eos_token_id=6, inner_hidden_size=64)
    assert info_of(folder).prompt_suffix == (2, 5)


def test_weights_that_are_missing_or_quantized(tmp_path: Path, pieces: Path) -> None:
    for name, change_of in {
        "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight": None,
        "transformer.output_layer.weight": np.zeros((ROWS, 7), np.float32),
        "transformer.encoder.layers.0.self_attention.query_key_value.weight": np.zeros((40, HIDDEN), np.float32),
    }.items():
        tensors = {**later_tensors(), name: change_of}
        folder = write_folder(
            tmp_path / "model", later_config(), {key: value for key, value in tensors.items() if value is not None}
        )
        shutil.copy(pieces, folder)
        with pytest.raises(ModelFileError):
            info_of(folder)
    scale = {"transformer.encoder.layers.0.mlp.dense_4h_to_h.weight_scale": np.ones(HIDDEN, np.float16)}
    folder = write_folder(tmp_path / "model", later_config(), {**later_tensors(), **scale})
    with pytest.raises(UnsupportedFeature, match="quantized already"):
        info_of(folder)


def test_tokenizers_that_are_missing_or_wrong(later: Path, chatglm_folder: Path, tmp_path: Path) -> None:
    (later / "tokenizer.model").rename(later / "ice_text.model")
    with pytest.raises(ModelFileError, match="belongs to ChatGLM-6B"):
        info_of(later)
    (later / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match="damaged"):
        info_of(later)
    folder = Path(shutil.copytree(chatglm_folder, tmp_path / "copy"))
    (folder / "ice_text.model").unlink()
    with pytest.raises(ModelFileError, match=r"ice_text\.model"):
        info_of(folder)
    write_pieces(later / "tokenizer.model", 640)
    with pytest.raises(ModelFileError, match="belong together"):
        info_of(change(later, padded_vocab_size=ROWS))


def test_neither_the_one_nor_the_other(later: Path) -> None:
    with pytest.raises(ModelFileError, match="describes no ChatGLM"):
        info_of(change(later, padded_vocab_size=None))


def test_an_output_matrix_that_is_the_embeddings_is_kept_once(chatglm_folder: Path, tmp_path: Path) -> None:
    """Stored twice as the published checkpoint has it, or once as the library saves it."""
    stored = load_file(chatglm_folder / "model.safetensors")
    rows = []
    for number, changes in enumerate(({"lm_head.weight": stored["transformer.word_embeddings.weight"]}, {})):
        tensors = {name: array for name, array in stored.items() if name != "lm_head.weight"}
        folder = Path(shutil.copytree(chatglm_folder, tmp_path / str(number)))
        save_file({**tensors, **changes}, folder / "model.safetensors", metadata={"format": "pt"})
        backend = transformers.load(folder, OPTIONS)
        assert backend.info.parameters == sum(array.size for array in tensors.values())
        rows.append(backend.decode([Chunk(0, 0, [20, 21, 1, 2])]).copy())
        backend.close()
    np.testing.assert_array_equal(*rows)
    assert info_of(chatglm_folder).parameters == sum(array.size for array in stored.values())
