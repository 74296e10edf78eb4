"""Keys that must not change: otherwise a new version would not find the results in existing stores.

``golden_keys.json`` holds the keys of some commands on the built-in data. One that changes without an increase of
`NUMERICS` fails here. If numbers did change, increase `NUMERICS` in `rib.runs.keys` and make the file again::

    python -m tests.runs.test_golden_keys
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rib.config import compose
from rib.config.shipped import options
from rib.runs.fields import fisher_key
from rib.runs.keys import NEUTRAL, NUMERICS, key_of, select_key_fields
from rib.runs.resolve import resolve

FILE = Path(__file__).with_name("golden_keys.json")

COMMANDS = (
    "",
    "+method=pretrained",
    "+method=finetune model=mini_small",
    *(f"+method={name}" for name in options("method") if name not in ("finetune", "pretrained")),
    "+method=[lwf,ewc] method.ewc.strength=3.0",
    "+method=[lwf,wise_ft] method.wise_ft.curve=[0.2,0.8]",
    "+method=soup method.soup.choice=greedy data.holdout=0.2",
    "dataset=objectnet data.label_rule=first",
    "dataset=imagenet_c suite=paper data.limit=300",
    "experiment=paper +method=ewc",
    "optimizer=adamw epochs=2 seed=3 batch_size=16 accumulate=2 clip=1.0 batch_norm=frozen",
    "data.images_per_class=2 data.subset_seed=null seed=1 data.augment=flip data.image_backend=pil",
    "data.shuffled_labels=true steps=3 precision=bf16-mixed evaluation.precision=bf16-mixed predictions.logits=true",
    "model.transform.crop_pct=0.9",
)


def keys_of(command: str, cache: Path | None) -> dict[str, object]:
    more = [] if cache is None else [f"paths.cache={cache}"]
    spec = resolve(compose("model=mini_tiny", "trainer=cpu", "data.root=null", *more, *command.split()))
    found: dict[str, object] = {"training": spec.training_key, "scores": spec.score_keys}
    if spec.trains:
        found["fisher"] = fisher_key(spec, spec.probe.key if spec.probe else None)
    return found


def golden() -> dict[str, dict[str, object]]:
    return json.loads(FILE.read_text())["keys"]


def test_the_file_is_of_this_version_of_the_numbers():
    assert json.loads(FILE.read_text())["numerics"] == NUMERICS, "run python -m tests.runs.test_golden_keys"
    assert set(golden()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_key_moves_while_numbers_stay(command, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert keys_of(command, cache) == golden()[command]


def test_a_new_option_at_its_neutral_value_moves_no_key(cache, monkeypatch):
    """A later version of rib introduces it with a neutral value and another default."""
    spec = resolve(compose("model=mini_tiny", "trainer=cpu", "data.root=null", f"paths.cache={cache}"))
    monkeypatch.setattr("rib.runs.keys.NEUTRAL", {**NEUTRAL, "noise": 0.0})
    for kind in ("trained", "score", "fisher"):
        before = key_of(spec.fields, kind)
        assert key_of({**spec.fields, "noise": 0.0}, kind) == before
        assert key_of({**spec.fields, "noise": 0.1}, kind) != before
        assert "noise" not in select_key_fields({**spec.fields, "noise": 0.0}, kind)


if __name__ == "__main__":
    keys = {command: keys_of(command, None) for command in COMMANDS}
    FILE.write_text(json.dumps({"numerics": NUMERICS, "keys": keys}, indent=1) + "\n")
