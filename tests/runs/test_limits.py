"""Limits on RI for tests and scripts: what fails, with which words and exit code."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import pytest

from rib.config.launch import launch
from rib.errors import RibError, RobustnessError
from rib.runs.limits import check_improvement, check_limit, check_results, describe_passed
from rib.runs.run import Run

TARGETS = ["imagenet_a", "imagenet_v2"]


def ri(value: float, half: float = 1.0) -> dict:
    return {"value": value, "low": value - half, "high": value + half, "targets": TARGETS}


def result(name: str, improvement: dict | None, method: str = "ewc"):
    metrics = {
        "model": "mini_tiny",
        "method": method,
        "source": "imagenet_r",
        "seed": 0,
        "suite": "seven",
        "options": {},
        "robustness_improvement": improvement,
    }
    return Run(Path(name)), metrics


@pytest.mark.parametrize(
    ("value", "fail_on", "passes"),
    [
        (-2.5, "upper", False),
        (-1.5, "upper", True),
        (-1.5, "value", False),
        (-2.0, "upper", True),
        (-1.0, "value", True),
    ],
)
def test_the_upper_end_or_the_value_is_compared(value, fail_on, passes):
    if passes:
        check_improvement(ri(value), -1.0, fail_on, against="the start")
        return
    with pytest.raises(RobustnessError):
        check_improvement(ri(value), -1.0, fail_on, against="the start")


def test_the_message_says_by_how_much_and_against_what():
    with pytest.raises(AssertionError) as error:
        check_improvement(ri(-2.25), -1.0, against="the start", what="mine")
    assert str(error.value) == (
        "mine: RI -2.25 [-3.25, -1.25] against the start, over 2 targets: its upper end is 0.25 below the limit of "
        "-1.00 percentage points"
    )


def test_what_passes_is_said_in_one_line():
    (run, metrics), other = result("good", ri(-1.5)), result("better", ri(0.0))
    one = (run, {**metrics, "protocol": {"limit": 3}})
    said = (
        "RI -1.50 [-2.50, -0.50]: its upper end is 0.50 above the limit of -1.00 percentage points: passed "
        "(at most 3 images per dataset)"
    )
    assert describe_passed([one], -1.0) == said
    assert "it is 0.50 above the limit of -2.00" in describe_passed([one], -2.0, "value")
    several = describe_passed([(other[0], {**other[1], "protocol": {"limit": None}}), one], -1.0)
    assert several == f"all 2 runs passed; the nearest, mini_tiny, ewc on imagenet_r, seed 0: {said}"


@pytest.mark.parametrize("fail_on", ["upper", "value"])
def test_a_number_that_is_none_fails(fail_on):
    with pytest.raises(RobustnessError, match=r"is not a number$"):
        check_improvement(ri(nan), -1.0, fail_on, against="the start")


@pytest.mark.parametrize(
    ("limit", "fail_on"), [(nan, "upper"), (-inf, "upper"), ("-1", "upper"), (True, "upper"), (-1, "low")]
)
def test_a_limit_that_is_none_is_an_error_of_the_user(limit, fail_on):
    with pytest.raises(RibError, match="expected") as error:
        check_limit(limit, fail_on)
    assert not isinstance(error.value, RobustnessError)


def test_every_run_that_fails_is_named():
    good, bad, worse = result("good", ri(0.0)), result("bad", ri(-3.0)), result("worse", ri(-4.0))
    check_results([good], -1.0)
    check_results([], -1.0)
    with pytest.raises(RobustnessError) as error:
        check_results([good, bad, worse], -1.0)
    summary, *lines = str(error.value).splitlines()
    assert summary == "2 of 3 runs failed fail_below=-1"
    assert [line.split(":")[0].strip() for line in lines] == [
        "mini_tiny, ewc on imagenet_r, seed 0 (bad)",
        "mini_tiny, ewc on imagenet_r, seed 0 (worse)",
    ]
    with pytest.raises(RobustnessError) as error:
        check_results([bad], -1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (result("start", ri(0.0), "pretrained"), "compares it with itself"),
        (result("none", None), "leaves no target"),
    ],
)
def test_a_run_without_an_ri_does_not_pass(without, words):
    with pytest.raises(RibError, match=words) as error:
        check_results([without], -1.0)
    assert not isinstance(error.value, RobustnessError)
    with pytest.raises(RibError, match="1 of 2 runs have no RI"):
        check_results([result("good", ri(0.0)), without], -1.0)
    with pytest.raises(RobustnessError, match=r"1 of 2 runs failed .* and 1 of 2 runs have no RI"):
        check_results([result("bad", ri(-3.0)), without], -1.0)


@pytest.mark.parametrize(("error", "code"), [(RobustnessError("lost"), 3), (RibError("wrong"), 1)])
def test_a_command_ends_with_the_errors_exit_code_and_one_line(monkeypatch, capsys, error, code):
    monkeypatch.setattr("sys.argv", ["rib.evaluate"])
    monkeypatch.setattr("rib.config.launch.show_command", lambda name: None)  # starts a thread
    for name in ("HYDRA_FULL_ERROR", "RIB_ONE_SENTENCE", "OMP_WAIT_POLICY"):  # as `launch` sets them
        monkeypatch.setenv(name, "1")

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        launch(main, "evaluate")
    assert stop.value.code == code
    assert capsys.readouterr().err == f"rib: {error}\n"
