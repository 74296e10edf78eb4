"""The activation of CLIP models (GELU or QuickGELU), which no weights file records."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models.start import find_start
from rib.runtime.console import say_once


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "ViT-B-16", "library": "open_clip"}, r"model\.activation=gelu, or the name ViT-B-16-quickgelu"),
        ({"name": "RN50", "library": "open_clip"}, "or the name RN50-quickgelu"),
        ({"name": "vit_base_patch16_clip_224", "library": "timm"}, "or the name vit_base_patch16_clip_quickgelu_224"),
        ({"name": "ViT-B-16", "library": "open_clip", "activation": "quickgelu"}, "use ViT-B-16-quickgelu"),
        (
            {"name": "ViT-B-16-quickgelu", "library": "open_clip", "activation": "gelu"},
            "has quickgelu, .*ViT-B-16$",
        ),
        ({"name": "ViT-B-16", "library": "open_clip", "activation": "relu"}, "expected gelu or quickgelu, got relu"),
        ({"name": "ViT-B-32-256", "library": "open_clip", "activation": "quickgelu"}, "there is no such network"),
    ],
)
def test_the_activation_of_a_clip_model_is_never_guessed(change, sentence, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "clip.safetensors")
    with pytest.raises(RibError, match=sentence):
        find_start(ModelConfig(**change, weights=str(tmp_path / "clip.safetensors")))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "ViT-B-16", "library": "open_clip", "activation": "gelu"},
        {"name": "ViT-B-16", "library": "open_clip", "tag": "laion2b_s34b_b88k"},
        {"name": "ViT-B-16-quickgelu", "library": "open_clip"},
        {"name": "vit_base_patch16_clip_224", "library": "timm", "activation": "gelu"},
        {"name": "vit_base_patch16_clip_224.openai_ft_in1k", "library": "timm"},
        {"name": "vit_base_patch16_224", "library": "timm"},
    ],
)
def test_an_activation_that_was_said_is_taken(change, tmp_path, capsys):
    save_file({"a": torch.zeros(2)}, tmp_path / "clip.safetensors")
    find_start(ModelConfig(**change, weights=str(tmp_path / "clip.safetensors")))
    assert "weights do not say" not in capsys.readouterr().err


def test_where_only_one_activation_is_known_it_is_said(tmp_path, capsys):
    say_once.cache_clear()
    save_file({"a": torch.zeros(2)}, tmp_path / "clip.safetensors")
    find_start(ModelConfig("ViT-B-32-256", "open_clip", weights=str(tmp_path / "clip.safetensors")))
    sentence = (
        "ViT-B-32-256 has gelu, but the weights do not record their activation; confirm it with model.activation=gelu"
    )
    assert sentence in capsys.readouterr().err
