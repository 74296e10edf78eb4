"""Conditions on options, as in ``where=``: how they are written, and which values meet them."""

from __future__ import annotations

import pytest

from rib.config.conditions import parse_conditions, quote_filters
from rib.config.unchecked import compose_node
from rib.errors import RibError


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("optimizer.lr=0.001", 0.001, True),
        ("optimizer.lr=1e-3", 0.001, True),
        ("optimizer.lr = 0.001", 0.002, False),
        ("epochs=5", 5.0, True),
        ("epochs==5", 5, True),
        ("epochs=true", 1, False),
        ("force=true", True, True),
        ("data.limit=null", None, True),
        ("data.limit=null", 60, False),
        ("data.limit!=null", 60, True),
        ("optimizer.lr=0.001,0.01", 0.01, True),
        ("optimizer.lr!=0.001,0.01", 0.01, False),
        ("epochs>=5", 5, True),
        ("epochs>5", 5, False),
        ("epochs<5", 4.5, True),
        ("epochs<=5", None, False),
        ("epochs<=5", "many", False),
        ("model=mini_*", "mini_tiny", True),
        ("data.augment='flip'", "flip", True),
        ("seed='1'", 1, False),
        ("method.lora.targets=[qkv,proj]", ["qkv", "proj"], True),
        ("data.root=/a/b=c", "/a/b=c", True),
    ],
)
def test_a_value_meets_a_condition_if_hydra_would_parse_it_to_that_value(text, value, holds):
    (condition,) = parse_conditions(text)
    assert condition.holds(value) is holds


def test_several_conditions_stand_in_one_text_a_list_or_a_mapping():
    wanted = [("optimizer.lr", "=", (0.001, 0.01)), ("epochs", ">=", (5,))]
    for given in ("optimizer.lr=0.001,0.01,epochs>=5", ["optimizer.lr=0.001,0.01", "epochs>=5"]):
        assert [(c.option, c.sign, c.values) for c in parse_conditions(given)] == wanted
    (condition,) = parse_conditions({"optimizer.lr": [0.001, 0.01]})
    assert (condition.option, condition.values) == ("optimizer.lr", (0.001, 0.01))
    assert str(condition) == "optimizer.lr=0.001,0.01"
    assert parse_conditions(None) == []


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", "epochs>many", "epochs<1,2", "", 7])
def test_what_is_no_condition_is_one_sentence(text):
    with pytest.raises(RibError, match=r"where: expected .*, got "):
        parse_conditions([text])


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["where=optimizer.lr=0.001"], ["optimizer.lr=0.001"]),
        (["where=optimizer.lr=0.001,0.01,epochs>=5"], ["optimizer.lr=0.001,0.01,epochs>=5"]),
        (["where=[optimizer.lr=0.001,seed=0]"], ["optimizer.lr=0.001,seed=0"]),
        (["where='optimizer.lr=0.001'"], ["optimizer.lr=0.001"]),
        (['where=["optimizer.lr=0.001","seed=0"]'], ["optimizer.lr=0.001", "seed=0"]),
        (["where=seed=0", "where=epochs<2"], ["seed=0", "epochs<2"]),
        (["where=data.augment='flip'"], ["data.augment='flip'"]),
        (["where=null"], None),
    ],
)
def test_the_command_line_needs_no_quotes_beyond_those_of_the_shell(arguments, where):
    assert compose_node("report", *quote_filters(arguments)).where == where


def test_several_names_need_no_brackets():
    given = ["methods=ewc,lwf+wise_ft", "models=mini_*", "seeds=0,1", "suite=seven"]
    node = compose_node("report", *quote_filters(given))
    assert (node.methods, node.models, node.seeds) == (["ewc", "lwf+wise_ft"], "mini_*", [0, 1])
    assert node.suites == "seven"


def test_a_quote_too_many_is_one_sentence():
    with pytest.raises(RibError, match=r'^where: expected OPTION=VALUE, .*, got "a=1$'):
        quote_filters(['where="a=1'])
