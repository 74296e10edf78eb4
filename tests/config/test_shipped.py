"""The shipped ``conf/`` files: PyYAML and OmegaConf read the same, and defaults are found without Hydra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from rib.config.shipped import conf_dir, shipped_nodes

FILES = sorted(Path(conf_dir()).rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(conf_dir())))
def test_both_libraries_read_a_file_alike(file):
    ours = yaml.safe_load(file.read_text()) or {}
    theirs = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert repr(ours) == repr(theirs)  # repr: 1 and 1.0 differ


def test_an_entry_of_a_method_is_unwrapped():
    assert shipped_nodes("method")["ewc"]["_target_"] == "rib.methods.ewc.EWC"
    assert shipped_nodes("method")["finetune"] == {}


def test_defaults_are_looked_up_without_hydra():
    code = "import sys, rib.runs.resolve; sys.exit(bool({'hydra', 'omegaconf', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
