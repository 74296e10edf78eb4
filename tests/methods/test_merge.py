"""Methods that combine finished runs: closed forms, endpoints bit for bit, neutral settings, misuse."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rib.errors import RibError
from rib.methods.fisher_merge import FisherMerge
from rib.methods.lines import LiNeS
from rib.methods.merge import Ingredients
from rib.methods.model_stock import ModelStock
from rib.methods.output_ensemble import OutputEnsemble
from rib.methods.rib_soup import RibSoup
from rib.methods.soup import Soup
from rib.methods.task_arithmetic import TaskArithmetic, Ties
from rib.methods.wise_ft import WiseFT
from rib.models.layers import depths, head_names
from rib.models.weights import average, equal, interpolate
from tests.support.fitting import fit, furthest, plain, same
from tests.support.nets import NETS


def given(net, parts=1, **more):
    """A start, and models that were trained from elsewhere."""
    models = [NETS[net](seed).backbone for seed in range(parts + 1)]
    start, *ends = (model.state_dict() for model in models)
    return Ingredients(
        start,
        ends,
        [f"part {i}" for i in range(parts)],
        [f"source {i}" for i in range(parts)],
        depth=depths(start, head_names(models[0])),
        parameters=frozenset(name for name, _ in models[0].named_parameters()),
        **more,
    )


def one_weight(*values, **more):
    """Models of a single weight vector, the start first."""
    start, *parts = ({"w": torch.tensor(v, dtype=torch.float64)} for v in values)
    names = [str(i) for i in range(len(parts))]
    return Ingredients(start, parts, names, names, depth={"w": 1}, parameters=frozenset({"w"}), **more)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("at_start", "at_end"),
    [
        (WiseFT(0.0), WiseFT(1.0)),
        (TaskArithmetic(0.0), TaskArithmetic(1.0)),
        (LiNeS(0.0, 0.0), LiNeS(1.0, 0.0)),
        (FisherMerge(0.0), FisherMerge(1.0)),
        (Ties(0.0, keep=1.0), Ties(1.0, keep=1.0)),
    ],
    ids=lambda method: method.name,
)
def test_the_ends_are_the_endpoints_bit_for_bit(net, at_start, at_end):
    g = given(net)
    assert equal(at_start.merge(g), g.start)
    assert equal(at_end.merge(g), g.parts[0])


@pytest.mark.parametrize("net", NETS)
def test_a_soup_of_one_is_that_one(net):
    g = given(net)
    assert equal(Soup().merge(g), g.parts[0])
    assert equal(RibSoup().merge(g), g.parts[0])


@pytest.mark.parametrize("net", NETS)
def test_ties_without_trimming_and_with_one_model_is_task_arithmetic(net):
    g = given(net)
    assert equal(Ties(0.3, keep=1.0).merge(g), TaskArithmetic(0.3).merge(g))


def test_task_arithmetic_is_its_formula():
    found = TaskArithmetic(0.4).merge(one_weight([1.0, 2.0], [2.0, 0.0], [3.0, 3.0]))["w"]
    assert torch.allclose(found, torch.tensor([1 + 0.4 * 3, 2 + 0.4 * -1], dtype=torch.float64))


def test_ties_by_hand():
    # Displacements (5, -1, 3, .1) and (-2, -3, .2, 4); half kept: (5, 0, 3, 0) and (0, -3, 0, 4).
    # No sign is contested any more: means of the non-zero entries are 5, -3, 3, 4.
    g = one_weight([0.0] * 4, [5.0, -1.0, 3.0, 0.1], [-2.0, -3.0, 0.2, 4.0])
    assert Ties(1.0, keep=0.5).merge(g)["w"].tolist() == [5, -3, 3, 4]
    # Untrimmed, the first is contested: +5 outweighs -2 and stands alone; the second agrees: -2.
    assert Ties(1.0, keep=1.0).merge(g)["w"].tolist() == pytest.approx([5, -2, 1.6, 2.05])


def test_lines_scales_block_by_block():
    g = given("vit")
    found = LiNeS(0.1, 0.9).merge(g)
    for name, factor in (("blocks.0.mlp.fc1.weight", 0.1), ("blocks.1.mlp.fc1.weight", 1.0), ("cls_token", 0.1)):
        expected = g.start[name] + factor * (g.parts[0][name] - g.start[name])
        assert torch.allclose(found[name], expected, atol=1e-6), name
    assert torch.equal(found["head.weight"], g.parts[0]["head.weight"])


def test_what_lies_behind_the_last_block_may_be_scaled_like_the_first_as_in_the_authors_code():
    """``layer_scalings.get(name, alpha)`` for whatever is outside the blocks."""
    g = given("vit")
    last, first = LiNeS(0.1, 0.9).merge(g), LiNeS(0.1, 0.9, behind="first").merge(g)
    for name, start in g.start.items():
        block = name.split(".")[1] if name.startswith("blocks.") else None
        factor = {"0": 0.1, "1": 1.0, None: 0.1}[block]
        assert torch.allclose(first[name], start + factor * (g.parts[0][name] - start), atol=1e-6), name
    changed = {name for name in g.start if not torch.equal(first[name], last[name])}
    assert "head.weight" in changed <= {"norm.weight", "norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("parts", [2, 3])
def test_model_stock_is_the_point_of_their_plane_nearest_to_the_centre(parts):
    """Fine-tunes on a shell of radius s around the centre 0, at right angles to each other and to the start."""
    s, away = 4.0, 3.0
    tunes = s * torch.eye(parts + 1)[:parts]
    start = away * torch.eye(parts + 1)[parts]
    found = ModelStock().merge(one_weight(start.tolist(), *tunes.tolist()))["w"]
    directions = (tunes - start).double()
    solution = torch.linalg.lstsq(directions.T, -start.double()).solution
    assert torch.allclose(found, start.double() + solution @ directions)


def test_model_stock_of_identical_models_is_that_model_and_of_opposed_ones_the_start():
    assert ModelStock().merge(one_weight([0.0, 0.0], [1.0, 2.0], [1.0, 2.0]))["w"].tolist() == pytest.approx([1, 2])
    assert ModelStock().merge(one_weight([5.0, 5.0], [6.0, 5.0], [4.0, 5.0]))["w"].tolist() == [5, 5]
    assert ModelStock().merge(one_weight([5.0], [5.0], [5.0]))["w"].tolist() == [5]
    with pytest.raises(RibError, match="expected two runs or more, got 1"):
        ModelStock().merge(given("vit"))


def test_fisher_merge_minimises_the_weighted_quadratic():
    """theta* = argmin (1-a) sum F0 (theta - theta0)^2 + a sum F1 (theta - theta1)^2."""
    fishers = {0.0: torch.tensor([1.0, 4.0, 0.0]), 2.0: torch.tensor([3.0, 1.0, 0.0])}
    g = one_weight([0.0] * 3, [2.0] * 3, fisher=lambda state: {"w": fishers[float(state["w"][0])]})
    found = FisherMerge(0.25).merge(g)["w"]
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = 0.75 * (fishers[0.0] * theta**2).sum() + 0.25 * (fishers[2.0] * (theta - 2) ** 2).sum()
    hessian = 2 * (0.75 * fishers[0.0] + 0.25 * fishers[2.0])
    (gradient,) = torch.autograd.grad(loss, theta)
    newton = -gradient / hessian.double()
    assert torch.allclose(found[:2], newton[:2])
    assert found[2] == pytest.approx(0.5)  # nobody cares: interpolated
    with pytest.raises(RibError, match="needs source images"):
        FisherMerge(0.5).merge(given("vit"))


def test_normalised_fishers_have_one_length_whatever_their_scale():
    """mmatena/model_merging: coefficients over each Fisher's Euclidean norm."""
    unit = {0.0: torch.tensor([3.0, 4.0]), 2.0: torch.tensor([4.0, 3.0])}

    def merged(scale, **options):
        scaled = {0.0: unit[0.0], 2.0: scale * unit[2.0]}
        g = one_weight([0.0] * 2, [2.0] * 2, fisher=lambda state: {"w": scaled[float(state["w"][0])]})
        return FisherMerge(0.25, **options).merge(g)["w"].tolist()

    expected = [2 * 0.25 * 4 / (0.75 * 3 + 0.25 * 4), 2 * 0.25 * 3 / (0.75 * 4 + 0.25 * 3)]
    assert merged(1.0) == pytest.approx(expected)
    assert merged(1.0, normalise="norm") == pytest.approx(expected)
    assert merged(1000.0, normalise="norm") == pytest.approx(expected)
    assert merged(1000.0) != pytest.approx(expected, rel=0.1)
    nobody = one_weight([0.0], [2.0], fisher=lambda state: {"w": torch.zeros(1)})
    assert FisherMerge(0.25, normalise="norm").merge(nobody)["w"].tolist() == pytest.approx([0.5])


def test_a_sign_that_is_exactly_contested_leaves_the_start():
    """The authors' code takes the side of most of the model's signs instead."""
    g = one_weight([1.0, 0.0, 0.0], [3.0, 1.0, 1.0], [-1.0, 1.0, 1.0])
    assert Ties(1.0, keep=1.0).merge(g)["w"].tolist() == [1, 1, 1]


def accuracy_by_first(table):
    """Held-out accuracy that depends on the first weight, rounded."""
    return lambda state: table(float(state["w"][0]))


def test_a_greedy_soup_keeps_what_does_not_make_it_worse():
    table = {3.0: 0.9, 1.0: 0.8, 2.0: 0.9, 8.0: 0.5, 4.0: 0.8}
    g = one_weight([0.0], [1.0], [3.0], [8.0], accuracy=accuracy_by_first(table.__getitem__))
    soup = Soup("greedy")
    # 3 first; with 1 it is 2, not worse; with 8 it would be 4, worse.
    assert soup.merge(g)["w"].tolist() == [2.0]
    assert soup.kept == ["0", "1"]


def test_strict_greed_wants_more():
    g = one_weight([0.0], [1.0], [3.0], accuracy=accuracy_by_first(lambda value: 0.9))
    kind, strict = Soup("greedy"), Soup("greedy", strict=True)
    assert kind.merge(g)["w"].tolist() == [2.0]
    assert strict.merge(g)["w"].tolist() == [1.0]
    assert strict.report() == {"soup.ingredients": 1, "soup.kept.0": 1.0}


def test_wise_ft_chooses_the_best_alpha_on_what_was_held_out_and_of_equals_the_smallest():
    g = one_weight([0.0], [1.0], accuracy=accuracy_by_first(lambda a: 0.8 if 0.25 < a < 0.45 else 0.5))
    method = WiseFT(choose=True)
    assert method.merge(g)["w"].tolist() == pytest.approx([0.3])
    assert method.report() == {"wise_ft.chosen_alpha": pytest.approx(0.3)}
    with pytest.raises(RibError, match=r"data.holdout"):
        WiseFT(choose=True).merge(one_weight([0.0], [1.0]))


def test_a_curve_holds_the_fixed_alpha_and_moves_steadily():
    g = given("vit")
    variants = WiseFT(0.3, curve=[0.0, 0.2, 1.0]).variants(g)
    assert list(variants) == ["0", "0.2", "0.5", "1"]
    away = [furthest(dict(g.start), weights) for weights in variants.values()]
    assert all(a < b for a, b in pairwise(away))
    assert equal(variants["0.5"], interpolate(g.start, g.parts[0], 0.5))
    assert WiseFT(0.3).variants(g) == {}


def test_the_rib_soup_leaves_out_what_has_seen_the_target():
    g = given("vit", parts=3)
    g = Ingredients(
        g.start,
        g.parts,
        g.labels,
        ["imagenet_a", "imagenet_cartoon", "imagenet_r"],
        family={"imagenet_cartoon": "imagenet_val", "imagenet_drawing": "imagenet_val"},
    )
    assert RibSoup().merge_for("imagenet_sketch", g) is None
    assert equal(RibSoup().merge_for("imagenet_a", g), average(g.parts[1:]))
    assert RibSoup().merge_for("imagenet_drawing", g) is None
    kin = RibSoup("family").merge_for("imagenet_drawing", g)
    assert equal(kin, average([g.parts[0], g.parts[2]]))
    alone = Ingredients(g.start, g.parts[:1], g.labels[:1], ["imagenet_a"])
    with pytest.raises(RibError, match="every ingredient was fine-tuned on imagenet_a"):
        RibSoup().merge_for("imagenet_a", alone)


def test_an_ensemble_averages_probabilities():
    torch.manual_seed(0)
    one, two = torch.randn(5, 7), 3 * torch.randn(5, 7)
    equal_weights = OutputEnsemble().combine([one, two])
    assert torch.allclose(equal_weights.exp(), (one.softmax(1) + two.softmax(1)) / 2, atol=1e-6)
    p, q = one.softmax(1), two.softmax(1)
    h = torch.stack([-(p * p.log()).sum(1), -(q * q.log()).sum(1)])
    w = (-h).exp() / (-h).exp().sum(0)
    expected = w[0, :, None] * p + w[1, :, None] * q
    assert torch.allclose(OutputEnsemble("entropy").combine([one, two]).exp(), expected, atol=1e-6)
    assert torch.allclose(OutputEnsemble("entropy").combine([one]).exp(), p, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_in_a_trainer_of_ones_own_it_is_between_the_start_and_the_end_of_that_fit(net):
    start, end = NETS[net]().state_dict(), plain(net)
    assert same(fit(NETS[net](), WiseFT(1.0)).state_dict(), end)
    assert same(fit(NETS[net](), WiseFT(0.0)).state_dict(), start)
    half = fit(NETS[net](), WiseFT(0.5)).state_dict()
    assert furthest(half, interpolate(start, end, 0.5)) == 0
    lines = fit(NETS[net](), LiNeS(1.0, 0.0)).state_dict()
    assert same(lines, end)


WRONG = [
    (
        lambda: WiseFT(1.5),
        r"method.wise_ft.alpha: .* or extrapolate=True \(on the command line method.wise_ft.extrapolate=true\), got",
    ),
    (lambda: WiseFT(0.5, [0.0, -0.1]), "method.wise_ft.curve: expected .* got -0.1"),
    (lambda: WiseFT(float("nan")), "got nan"),
    (lambda: FisherMerge(alpha=1.5), r"expected a number from 0 \(the start\) to 1 \(the fine-tuned end\), got 1.5"),
    (lambda: Soup("best"), "method.soup.choice: expected uniform or greedy, got 'best'"),
    (lambda: LiNeS(-0.1), "method.lines.first: .* got -0.1"),
    (lambda: TaskArithmetic(-1.0), "method.task_arithmetic.strength: .* got -1"),
    (lambda: Ties(keep=0.0), "method.ties.keep: expected a share above 0"),
    (lambda: FisherMerge(alpha=2.0), "method.fisher_merge.alpha"),
    (lambda: FisherMerge(samples=0), "method.fisher_merge.samples"),
    (lambda: FisherMerge(normalise="mean"), "method.fisher_merge.normalise: expected none or norm, got 'mean'"),
    (lambda: LiNeS(behind="middle"), "method.lines.behind: expected last or first, got 'middle'"),
    (lambda: RibSoup("all"), "method.rib_soup.leave_out"),
    (lambda: OutputEnsemble("softmax"), "method.output_ensemble.weights"),
    (lambda: WiseFT(0.5).merge(given("vit", parts=2)), r"expected one run, got 2 \(part 0, part 1\)"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_misuse_is_one_sentence(wrong, sentence):
    with pytest.raises(RibError, match=sentence) as error:
        wrong()
    assert "\n" not in str(error.value)


def test_outside_0_to_1_where_it_is_asked_for():
    g = one_weight([0.0], [1.0])
    assert WiseFT(1.5, extrapolate=True).merge(g)["w"].tolist() == [1.5]
