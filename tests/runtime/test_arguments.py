"""Wrong arguments of the functions of ``import rib``: one sentence that names the right one."""

from __future__ import annotations

import inspect
import re

import pytest

import rib
import rib.api
from rib.results.comparison import RunComparison
from rib.results.finished_run import FinishedRun
from rib.scoring.report import Score

RUN, SCORE, COMPARISON = (object.__new__(of) for of in (FinishedRun, Score, RunComparison))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: rib.find_runs(methods="ewc"), "find_runs: no argument methods; did you mean method=?"),
        (lambda: rib.find_runs(models="a"), "find_runs: no argument models; did you mean model=?"),
        (lambda: rib.find_runs(seeds=0), "find_runs: no argument seeds; did you mean seed=?"),
        (lambda: rib.find_runs(dataset="imagenet_r"), "find_runs: no argument dataset; did you mean source=?"),
        (lambda: rib.find_runs(lr=0.1), "find_runs: no argument lr; write conditions on options as where='lr=0.1'"),
        (lambda: rib.find_runs(xyzzy=1), "find_runs: no argument xyzzy; its arguments are method=, model=, source="),
        (lambda: rib.find_runs("ewc"), "without a name; write find_runs(method='ewc')"),
        (lambda: rib.load("0", store="x"), "load: no argument store; did you mean runs=?"),
        (lambda: rib.load(), "load: missing a required argument: 'run'; its arguments are run=, runs=, suite="),
        (lambda: rib.compare(a=0, b=1), "compare: no argument a; did you mean first=?"),
        (lambda: rib.score(None, preprocess=0), "score: no argument preprocess; did you mean transform=?"),
        (lambda: rib.score(None, dataset=0), "score: no argument dataset; did you mean source= or datasets=?"),
        (
            lambda: RUN.check(),
            "check: missing a required argument: 'fail_below'; its arguments are fail_below=, fail_on=",
        ),
        (lambda: SCORE.check(), "check: missing a required argument: 'fail_below'; its arguments are fail_below="),
        (lambda: RUN.images(), "images: missing a required argument: 'dataset'; its arguments are dataset="),
        (
            lambda: RUN.predictions("a", "b"),
            "predictions: too many arguments without a name; write predictions(dataset=",
        ),
        (lambda: COMPARISON.classes(), "classes: missing a required argument: 'dataset'; its arguments are dataset="),
        (lambda: rib.finetune(method="ewc", source="imagenet_r"), "did you mean dataset=imagenet_r?"),
    ],
)
def test_a_wrong_argument_gets_the_right_name(call, sentence):
    with pytest.raises(rib.RibError, match=re.escape(sentence)) as caught:
        call()
    assert isinstance(caught.value, TypeError) or "there is no such option" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in rib.api.__all__ if name != "finetune"])
def test_a_function_keeps_its_signature(name):
    function = getattr(rib, name)
    assert function.__wrapped__ and function.__doc__ and function.__module__ == "rib.api"
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)


def test_a_type_error_from_inside_is_left_alone(monkeypatch):
    def broken(*_):
        raise TypeError("of another function")

    monkeypatch.setattr(rib.api, "find_run", broken)
    with pytest.raises(TypeError, match=r"^of another function$"):
        rib.load("0")
