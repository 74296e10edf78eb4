"""Nothing outside the catalog and its data files knows the names of ImageNet's datasets, or how many they are."""

import ast
import re
from pathlib import Path

import rib

ROOT = Path(rib.__file__).parent

NAMES = re.compile(r"imagenet|objectnet|\b1000\b|\bwnid|\bseven\b", re.IGNORECASE)

MAY = (
    "data/catalog.py",
    "data/mini/",
    "data/resources/",
    "data/suites/",  # ids of ImageNet's outputs, by which head=subset maps an ImageNet classifier
    "data/folders.py",  # the layouts of these datasets, which the catalog names as rules
    "data/layout.py",
    "data/listing.py",
    "models/",  # pretrained models: what they were trained on, their heads, zero-shot sentences
    "runs/errata.py",  # errors of the ImageNet-RIB authors' code
    "studies/errata.py",
)
"""Modules about these datasets: the catalog, its data files, facts of pretrained models, and the authors' errors."""

MAY_SAY = {
    "config/aliases.py": "other spellings of their names on the command line",
    "config/conf_comments.py": "examples of groups",
    "config/corrections.py": "a name without its beginning",
    "config/messages.py": "numbers in words",
    "config/schema.py": "switches of the errata",
    "config/slips.py": "what suite=FILE is not",
    "data/__main__.py": "an example",
    "data/check.py": "an example",
    "methods/": "defaults of 1000 samples",
    "api.py": "the default suite",
    "reporting/alignment.py": "switches of the errata",
    "reporting/comparability.py": "switches of the errata",
    "reporting/heads.py": "the key of a suite's file for head=subset",
    "results/same_images.py": "the dataset of data.label_rule",
    "runs/heads.py": "which models have a head of those classes",
    "runs/ingredients.py": "a permission",
    "runs/keys.py": "options of that name",
    "runs/sources.py": "a permission",
    "runs/spec.py": "switches of the errata, a permission",
    "sweeps/executors.py": "a limit of jobs",
    "terminal/model_list.py": "published accuracies",
    "training/merge.py": "a default of 1000 samples",
}
"""Modules that name one of them for another reason."""


def strings_and_numbers(file: Path) -> list[str]:
    """Return the texts, whole numbers and names in the code of a module, without docstrings; none without a match."""
    text = file.read_text()
    if not NAMES.search(text):
        return []
    tree = ast.parse(text)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    found = [str(node.value) for node in constants if isinstance(node.value, str | int)]
    found += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return found + [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def test_only_the_catalog_and_modules_about_imagenet_name_it():
    known = {}
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        named = [text for text in strings_and_numbers(file) if NAMES.search(text)]
        if named and not any(name.startswith(prefix) for prefix in (*MAY, *MAY_SAY)):
            known[name] = named
    assert known == {}


def test_no_table_or_figure_takes_a_name_from_the_code():
    for package in ("reporting", "loggers", "scoring", "results", "analysis", "sweeps"):
        for file in sorted((ROOT / package).glob("*.py")):
            named = [text for text in strings_and_numbers(file) if re.search("ImageNet|imagenet_(?!c$)", text)]
            assert [text for text in named if text != "paper.resize_imagenet_c"] == [], file
