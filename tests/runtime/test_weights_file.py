"""Headers of weights files: metadata, and digests that do not depend on them."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from rib.runtime.files import file_digest
from rib.runtime.weights_file import add_metadata, has_own_digest, read_metadata, weights_file_digest

STATE = {"b": torch.arange(3.0), "ä.weight": torch.arange(4), "half": torch.ones(2, 2).half()}
METADATA = {"rib_version": "1", "command": 'a "b" é {},', "format": "pt"}


def test_metadata_change_neither_tensors_nor_digest(tmp_path):
    plain, described, renamed = (tmp_path / f"{name}.safetensors" for name in ("plain", "described", "renamed"))
    plain.write_bytes(save(STATE))
    described.write_bytes(b"".join(add_metadata(save(STATE), METADATA)))
    renamed.write_bytes(b"".join(add_metadata(described.read_bytes(), METADATA | {"model": "other"})))
    assert all(torch.equal(load_file(described)[name], tensor) for name, tensor in STATE.items())
    with safe_open(described, framework="pt") as file:
        assert file.metadata() == read_metadata(described) == METADATA
    assert read_metadata(renamed)["model"] == "other" and read_metadata(plain) == {}
    # The digest of a file of an older version of rib: the SHA-256 of its bytes.
    assert weights_file_digest(plain) == weights_file_digest(described) == weights_file_digest(renamed)
    assert weights_file_digest(plain) == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert [has_own_digest(file) for file in (plain, described)] == [False, True]


def test_a_changed_number_changes_the_digest(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"".join(add_metadata(save(STATE), METADATA)))
    before, content = weights_file_digest(file), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_file_digest(file) != before
    file.write_bytes(content[:-1])
    assert weights_file_digest(file) != before


def test_files_of_others_keep_the_digest_of_all_their_bytes(tmp_path):
    save_file(STATE, tmp_path / "hf.safetensors", metadata={"format": "pt"})
    torch.save(STATE, tmp_path / "w.pt")
    for name, content in (
        ("empty", b""),
        ("short", b"{"),
        ("cut", b"\xff\0\0\0\0\0\0\0{"),
        ("huge", b"\xff" * 8 + b"{"),
    ):
        (tmp_path / name).write_bytes(content)
    for file in tmp_path.iterdir():
        assert weights_file_digest(file) == file_digest(file)


def test_the_bytes_do_not_depend_on_the_order_of_metadata():
    """safetensors itself writes metadata in an order that differs from process to process."""
    keys = [f"key{i}" for i in range(20)]
    header, _ = add_metadata(save(STATE), dict.fromkeys(reversed(keys), "1"))
    assert header == add_metadata(save(STATE), dict.fromkeys(keys, "1"))[0]
    assert list(json.loads(header[8:])["__metadata__"]) == sorted(keys)


@pytest.mark.parametrize("kind", ["none", "numbers"])
def test_a_header_that_is_no_dictionary_is_none(kind, tmp_path):
    text = b"[1]" if kind == "numbers" else b"{}"
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text)
    assert read_metadata(tmp_path / "x") == {}
