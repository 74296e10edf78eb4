"""Python arguments become the config that the same words on a command line give."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from rib.config import compose
from rib.config.keywords import overrides_of
from rib.errors import RibError


def composed(method=None, *overrides, **values):
    return compose(*overrides_of(method, overrides, values))


class Choice(StrEnum):
    frozen = "frozen"


@pytest.mark.parametrize(
    ("arguments", "values", "words"),
    [
        ((), {}, []),
        (("ewc",), {}, ["+method=ewc"]),
        ((["lwf", "wise_ft"],), {}, ["+method=[lwf,wise_ft]"]),
        (({"ewc": {"strength": 3}},), {}, ["+method=ewc", "method.ewc.strength=3"]),
        (({"lwf": None, "wise_ft": {"alpha": 0.3}},), {}, ["+method=[lwf,wise_ft]", "method.wise_ft.alpha=0.3"]),
        (("ewc", "method.ewc.strength=3"), {"seed": 1}, ["+method=ewc", "seed=1", "method.ewc.strength=3"]),
        (("method=ewc", "seed=2"), {}, ["method=ewc", "seed=2"]),
        ((None, "seed=2"), {"seed": 1}, ["seed=1", "seed=2"]),
        ((None, "~method.ewc"), {}, ["~method.ewc"]),
        ((), {"optimizer": "adamw"}, ["optimizer=adamw"]),
        ((), {"optimizer": {"lr": 1e-3}}, ["optimizer.lr=0.001"]),
        ((), {"data.holdout": 0.25}, ["data.holdout=0.25"]),
        ((), {"seed": np.int64(3), "clip": np.float32(0.5)}, ["seed=3", "clip=0.5"]),
        ((), {"epochs": torch.tensor(2)}, ["epochs=2"]),
        ((), {"batch_norm": Choice.frozen}, ["batch_norm=frozen"]),
        ((), {"precision": None, "logger": None, "experiment": None}, ["precision=null", "logger=none"]),
        ((), {"suite": {"targets": ("imagenet_r", "imagenet_a")}}, ["suite.targets=[imagenet_r,imagenet_a]"]),
        (({"soup": {"ingredients": ["ewc", "lwf"]}},), {}, ["+method=soup", "method.soup.ingredients=[ewc,lwf]"]),
    ],
)
def test_arguments_are_the_words_of_a_command(arguments, values, words):
    method, *overrides = arguments or (None,)
    assert overrides_of(method, overrides, values) == words


def test_the_words_compose_and_the_texts_come_last():
    config = composed({"ewc": {"strength": 3}}, "seed=2", seed=1, optimizer="adamw", data={"root": Path("/d #1")})
    assert (config.method["ewc"]["strength"], config.seed, config.data.root) == (3.0, 2, "/d #1")
    assert config.optimizer["_target_"].endswith("AdamW")
    assert composed("method=ewc").method.keys() == {"ewc"}


@pytest.mark.parametrize(
    "text",
    ["/data/my images", "/d/a=b,c", "#1 (ü) [x] {y: 1}", "it's", '"q"', "7", "null", "true", "", "C:\\new\\", "~/x"],
)
def test_texts_with_any_characters_arrive_as_they_are(text):
    for given, expected in ((text, text), (Path(text), str(Path(text)))):
        (override,) = OverridesParser.create().parse_overrides(overrides_of(None, (), {"data": {"root": given}}))
        assert (override.key_or_group, override.value()) == ("data.root", expected)


@pytest.mark.parametrize(
    ("arguments", "values", "sentence"),
    [
        (("ewc", "lwf"), {}, r"'lwf': expected an override, 'NAME=VALUE', after the method; .*\['ewc', 'lwf'\]"),
        (("ewc", 3), {}, "3: expected an override"),
        ((3,), {}, "method: expected a name, a list of names or None, got 3"),
        (([1],), {}, "method: expected names, got 1"),
        (("ewcc",), {}, r"method=ewcc: there is no such method; did you mean \+method=ewc\?"),
        ((), {"optimizer__lr": 0.1}, "optimizer__lr: there is no such option; did you mean optimizer.lr?"),
        ((), {"modell": "mini_tiny"}, "modell: there is no such option; did you mean model?"),
        ((), {"model": "mini_tny"}, r"model=mini_tny: there is no such model; did you mean model=mini_tiny\?"),
        ((), {"model": ["mini_tiny", "mini_small"]}, "model: expected one name, .*call the function for each"),
        ((), {"model": None}, "model: expected one name"),
        ((), {"seed": [0, 1]}, r"seed=\[0,1\]: expected one number, got a list"),
        ((), {"epochs": "two"}, "epochs: expected a whole number, got 'two'"),
        ((), {"data": {"root": object()}}, "data.root: expected a number, a text, .*got <object"),
        ((), {"clip": lambda x: x}, "clip: expected a number"),
    ],
)
def test_a_slip_is_one_sentence(arguments, values, sentence):
    with pytest.raises(RibError, match=sentence) as caught:
        composed(*arguments, **values)
    assert "\n" not in str(caught.value)
