"""Weight arithmetic: endpoints bit for bit, means against torch, mismatches named."""

from __future__ import annotations

import pytest
import torch

from rib.errors import RibError
from rib.models.weights import StoredWeights, average, combine, equal, interpolate, mix, save_weights
from tests.support.nets import small_convnet, small_vit


def states(count):
    found = [{n: t.clone() for n, t in small_convnet(seed).backbone.state_dict().items()} for seed in range(count)]
    for i, state in enumerate(found):
        state["1.num_batches_tracked"] = torch.tensor(10 + i)
    return found


@pytest.mark.parametrize("net", [small_vit, small_convnet])
def test_the_ends_of_an_interpolation_are_the_endpoints_bit_for_bit(net):
    start, end = net(0).backbone.state_dict(), net(1).backbone.state_dict()
    end = {name: torch.where(t == 0, -0.0, t) if t.is_floating_point() else t for name, t in end.items()}
    assert equal(interpolate(start, end, 0.0), start)
    assert equal(interpolate(start, end, 1.0), end)
    assert all(
        torch.equal(torch.signbit(t), torch.signbit(end[n]))
        for n, t in interpolate(start, end, 1.0).items()
        if t.is_floating_point()
    )


def test_between_the_ends_it_is_lerp():
    start, end = small_vit(0).state_dict(), small_vit(1).state_dict()
    found = interpolate(start, end, 0.3)
    assert all(torch.allclose(found[n], torch.lerp(start[n], end[n], 0.3), atol=1e-7) for n in start)


def test_an_average_is_the_mean_and_of_one_is_that_one():
    three = states(3)
    found = average(three)
    for name in three[0]:
        if three[0][name].is_floating_point():
            assert torch.allclose(found[name], torch.stack([s[name] for s in three]).mean(0), atol=1e-7)
    assert equal(average(three[:1]), three[0])
    assert equal(average([three[0]] * 4), three[0])


def test_integers_are_taken_from_the_heaviest_and_of_equals_the_last():
    three = states(3)
    assert average(three)["1.num_batches_tracked"] == 12
    assert mix(three, [0.2, 0.5, 0.3])["1.num_batches_tracked"] == 11
    assert mix(three, [1.0, 0.0, 0.0])["1.num_batches_tracked"] == 10
    assert combine(three, lambda _, tensors: tensors[0])["1.num_batches_tracked"] == 12


def test_half_precision_stays_and_is_summed_in_float64():
    ones = [{"w": torch.full((3,), 2048.0, dtype=torch.float16)}, {"w": torch.full((3,), 1.0, dtype=torch.float16)}]
    found = mix(ones, [1.0, 2.0])["w"]
    assert found.dtype == torch.float16
    assert (found == 2050).all()  # in float16 alone, 2048 + 1 + 1 is 2048


def test_models_that_differ_are_named():
    one, other = small_vit().state_dict(), small_convnet().state_dict()
    with pytest.raises(RibError, match=r"one architecture, but backbone.* is a tensor of only one of them"):
        average([one, other])
    wide = {**one, "backbone.head.bias": torch.zeros(3)}
    with pytest.raises(RibError, match=r"backbone.head.bias has the shapes \(20,\) and \(3,\)"):
        interpolate(one, wide, 0.5)
    with pytest.raises(RibError, match="at least one model"):
        average([])


def test_stored_weights_are_a_mapping(tmp_path):
    state = states(1)[0]
    save_weights(state, tmp_path / "weights.safetensors")
    stored = StoredWeights(tmp_path / "weights.safetensors")
    assert equal(stored, state)
    assert len(stored) == len(state)
    with pytest.raises(KeyError):
        stored["nothing"]


def test_an_average_of_twenty_reads_one_tensor_of_each_before_the_next(tmp_path):
    state, read = states(1)[0], []
    save_weights(state, tmp_path / "weights.safetensors")

    class Watched(StoredWeights):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    many = [Watched(tmp_path / "weights.safetensors") for _ in range(20)]
    assert equal(average(many), state)
    assert read == [name for name in many[0] for _ in range(20)]


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(RibError, match="cannot read weights"):
        StoredWeights(tmp_path / "weights.safetensors")
