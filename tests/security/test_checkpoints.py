"""Checkpoints from strangers: what could run something runs nothing, and what is damaged is a typed error."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402 - comes with torch's extra

from local_llms.backends import transformers  # noqa: E402
from local_llms.backends.base import Chunk, LoadOptions  # noqa: E402
from local_llms.errors import LocalLLMError, ModelFileError, UnsupportedFeature  # noqa: E402

ONE_THREAD = LoadOptions(threads=1)
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a sound checkpoint, to be damaged; the cache is empty."""
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "home"))
    target = tmp_path / "model"
    shutil.copytree(shared_data / "models/stories260K/hf", target)
    for file in target.iterdir():
        file.chmod(0o644)
    return target


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_hostile_configuration_changes_nothing(
    folder: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "witness"
    (folder / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(witness)!r}).touch()\nclass Evil:\n    pass\nEvilTokenizer = Evil\n"
    )
    change(
        folder / CONFIG,
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoModel": "other/repo--evil.Evil"},
        trust_remote_code=True,
        _attn_implementation="somebody/kernel",
        attn_implementation="somebody/kernel",
        _attn_implementation_internal="flash_attention_2",
        _experts_implementation="somebody/kernel",
        experts_implementation="somebody/kernel",
        use_kernels=True,
        kernel_config={"RMSNorm": "somebody/kernel:Layer"},
        fusion_config={"all": True},
        custom_generate="evil.py",
        custom_pipelines={"evil": {"impl": "evil.Evil"}},
        transformers_weights="../../../etc/passwd",
        _name_or_path="somebody/model",
        extra_files=["evil.py"],
        torchscript=True,
    )
    change(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]},
        tokenizer_class="EvilTokenizer",
        add_bos_token=True,
    )
    change(folder / "generation_config.json", custom_generate="evil.py", _from_model_config=True)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr("socket.socket." + name, refuse)
    backend = transformers.load(folder, ONE_THREAD)
    sound = transformers.load(shared_data / "models/stories260K/hf", ONE_THREAD)
    ids = [1, *sound.tokenize("Once upon a time")]
    assert [1, *backend.tokenize("Once upon a time")] == ids
    assert (backend.decode([Chunk(0, 0, ids, "all")]) == sound.decode([Chunk(0, 0, ids, "all")])).all()
    assert not witness.exists()
    assert "evil" not in sys.modules


def test_an_unknown_architecture_with_code_beside_it(folder: Path) -> None:
    change(folder / CONFIG, model_type="evil", auto_map={"AutoConfig": "evil.Evil"})
    with pytest.raises(UnsupportedFeature, match="never run"):
        transformers.load(folder, ONE_THREAD)


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "system": lambda witness: Attack(os.system, f"touch {witness}"),
    "eval": lambda witness: Attack(eval, f"open({str(witness)!r}, 'w')"),
    "open": lambda witness: Attack(open, str(witness), "w"),
    "getattr": lambda witness: Attack(getattr, "text", "upper"),
    "among tensors": lambda witness: {"lm_head.weight": torch.ones(2), "x": Attack(os.mkdir, str(witness))},
}


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "plain"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_with_code(folder: Path, tmp_path: Path, attack: str, archive: bool) -> None:
    witness = tmp_path / "witness"
    (folder / WEIGHTS).unlink()
    value = ATTACKS[attack](witness)
    if archive:
        torch.save(value, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(ModelFileError):
        transformers.load(folder, ONE_THREAD)
    assert not witness.exists()


def test_a_pickle_of_tensors_is_read(folder: Path, shared_data: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    backend = transformers.load(folder, ONE_THREAD)
    sound = transformers.load(shared_data / "models/stories260K/hf", ONE_THREAD)
    assert (backend.decode([Chunk(0, 0, [1, 5, 9])]) == sound.decode([Chunk(0, 0, [1, 5, 9])])).all()


def test_shards_are_read_and_one_that_is_missing_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    table = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert transformers.load(folder, ONE_THREAD).info.parameters == 260_032
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match="00002-of-00002"):
        transformers.load(folder, ONE_THREAD)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}))
    with pytest.raises(ModelFileError, match="index"):
        transformers.load(folder, ONE_THREAD)


def longer(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(bytes(4))


Damage = Callable[[Path], None]


def cut(name: str, part: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * part)])

    return damage


def replace(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data) and None


def header(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change the header of the weights."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        entries.pop("__metadata__", None)
        text = json.dumps(edit(entries) or entries).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return damage


def entry(**values: Any) -> Damage:
    def edit(entries: dict[str, Any]) -> None:
        next(iter(entries.values())).update(values)

    return header(edit)


def flip_header(seed: int) -> Damage:
    """One bit of the weights' header, at a place that means something."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / WEIGHTS).read_bytes())
        length = struct.unpack("<Q", data[:8])[0]
        meaning = [place for place in range(8, 8 + length) if chr(data[place]) not in ' "']
        place = random.Random(seed).choice(meaning)
        data[place] ^= 0x15
        (folder / WEIGHTS).write_bytes(data)

    return damage


def setting(**values: Any) -> Damage:
    return lambda folder: change(folder / CONFIG, **values)


def tensors(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        edit(found)
        save_file(found, folder / WEIGHTS)

    return damage


def as_pickle(then: Damage) -> Damage:
    def damage(folder: Path) -> None:
        torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
        (folder / WEIGHTS).unlink()
        then(folder)

    return damage


def flip_pickle(seed: int) -> Damage:
    """One byte inside a member of the archive."""

    def damage(folder: Path) -> None:
        path = folder / "pytorch_model.bin"
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.file_size > 64 and "data" in member.filename]
        member = random.Random(seed).choice(members)
        place = data.index(member.filename.encode(), member.header_offset) + len(member.filename) + 64
        data[place + random.Random(seed).randrange(member.file_size // 2)] ^= 0xFF
        path.write_bytes(data)

    return damage


def tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        spec = json.loads((folder / TOKENIZER).read_text())
        spec = edit(spec) or spec
        (folder / TOKENIZER).write_text(json.dumps(spec))

    return damage


def model_part(**values: Any) -> Damage:
    return tokenizer(lambda spec: spec["model"].update(values))


NAN = float("nan")
LENGTHS = (0, 1, 1 << 20, 1 << 40, (1 << 64) - 1)
DAMAGES: dict[str, Damage] = {
    **{f"weights cut to {part}": cut(WEIGHTS, part) for part in (0, 0.000005, 0.001, 0.003, 0.1, 0.5, 0.9, 0.9999)},
    **{
        f"header length {length}": (
            lambda folder, length=length: (folder / WEIGHTS).write_bytes(
                struct.pack("<Q", length) + (folder / WEIGHTS).read_bytes()[8:]
            )
        )
        for length in LENGTHS
    },
    **{f"header bit {seed}": flip_header(seed) for seed in range(15)},
    "header no object": header(lambda entries: ["x"]),
    "header empty": header(lambda entries: {"__metadata__": {}}),
    "weights longer": longer,
    "unknown type": entry(dtype="Q7"),
    "type a number": entry(dtype=7),
    "negative shape": entry(shape=[-1, 64]),
    "enormous shape": entry(shape=[1 << 40, 1 << 40]),
    "shape a text": entry(shape="64"),
    "one offset": entry(data_offsets=[0]),
    "offsets swapped": entry(data_offsets=[100, 0]),
    "offsets beyond": entry(data_offsets=[0, 1 << 50]),
    "web page": replace(WEIGHTS, b"<!DOCTYPE html><html><body>404</body></html>"),
    "git-lfs pointer": replace(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "tensor missing": tensors(lambda found: found.pop("model.norm.weight")),
    "layer missing": tensors(lambda found: [found.pop(name) for name in list(found) if ".layers.4." in name]),
    "other shape": tensors(lambda found: found.update({"model.norm.weight": torch.ones(65)})),
    "no numbers": tensors(lambda found: found.update({"model.norm.weight": torch.full((64,), NAN)})),
    **{f"pickle cut to {part}": as_pickle(cut("pytorch_model.bin", part)) for part in (0, 0.0001, 0.01, 0.7, 0.99)},
    **{f"pickle byte {seed}": as_pickle(flip_pickle(seed)) for seed in range(10)},
    "pickle of a list": as_pickle(lambda folder: torch.save([1, 2], folder / "pytorch_model.bin")),
    "pickle of nothing": as_pickle(lambda folder: torch.save({}, folder / "pytorch_model.bin")),
    "pickle a web page": as_pickle(replace("pytorch_model.bin", b"<html></html>")),
    "pickle of others": as_pickle(lambda folder: torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")),
    **{f"config cut to {part}": cut(CONFIG, part) for part in (0, 0.1, 0.5, 0.97)},
    "config a list": replace(CONFIG, b"[1, 2]"),
    "config deep": replace(CONFIG, b"[" * 100_000),
    "config not text": replace(CONFIG, bytes(range(256))),
    **{
        f"{key} {value!r:.20}": setting(**{key: value})
        for key, value in [
            ("model_type", None), ("model_type", 5), ("model_type", "no-such"), ("model_type", "bert"),
            ("hidden_size", -64), ("hidden_size", "64"), ("hidden_size", 1 << 60), ("hidden_size", 63),
            ("hidden_size", 1 << 19), ("intermediate_size", 171), ("intermediate_size", 1 << 19),
            ("num_hidden_layers", 10**9), ("num_hidden_layers", 900), ("num_hidden_layers", 0),
            ("num_attention_heads", 0), ("num_attention_heads", 7), ("num_key_value_heads", 0),
            ("num_key_value_heads", 3), ("vocab_size", 0), ("vocab_size", 10**7), ("vocab_size", 100),
            ("hidden_act", "no-such"), ("rope_parameters", {"rope_type": "no-such"}), ("rms_norm_eps", "small"),
            ("rope_theta", "x"), ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ]
    },
    **{f"tokenizer cut to {part}": cut(TOKENIZER, part) for part in (0, 0.01, 0.5, 0.99)},
    "tokenizer a list": replace(TOKENIZER, b"[]"),
    "tokenizer without a model": tokenizer(lambda spec: spec.pop("model") and None),
    "tokenizer without words": model_part(vocab={}),
    "tokenizer with words as a text": model_part(vocab="abc"),
    "tokenizer with a text for an id": model_part(vocab={"a": "b"}),
    "tokenizer with an enormous id": model_part(vocab={"a": 1 << 40}),
    "tokenizer with a negative id": model_part(vocab={"a": -1}),
    "tokenizer with unknown merges": model_part(merges=["x y"]),
    "tokenizer of another kind": model_part(type="Other"),
    "tokenizer with wrong added tokens": tokenizer(lambda spec: spec.update(added_tokens=[{"id": "x"}])),
    "tokenizer with added texts": tokenizer(lambda spec: spec.update(added_tokens=["x"])),
    "tokenizer with a wrong decoder": tokenizer(lambda spec: spec.update(decoder={"type": "Other"})),
    "tokenizer too large for the model": tokenizer(
        lambda spec: spec["added_tokens"].append({**spec["added_tokens"][0], "id": 600, "content": "<more>"})
    ),
    "no tokenizer": lambda folder: (folder / TOKENIZER).unlink(),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "tokenizer_config damaged": replace("tokenizer_config.json", b"{"),
    "generation_config damaged": replace("generation_config.json", b"nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_a_typed_error(folder: Path, name: str) -> None:
    DAMAGES[name](folder)
    with pytest.raises(LocalLLMError) as caught:
        transformers.load(folder, ONE_THREAD)
    assert isinstance(caught.value, ModelFileError | UnsupportedFeature), caught.value
    assert str(folder.parent) in str(caught.value), "the error does not name the file"


def test_too_many_layers_are_refused_before_they_are_built(folder: Path) -> None:
    change(folder / CONFIG, num_hidden_layers=900)
    with pytest.raises(ModelFileError, match="900 layers"):
        transformers.load(folder, ONE_THREAD)


def test_there_are_enough_damages() -> None:
    assert len(DAMAGES) >= 80
