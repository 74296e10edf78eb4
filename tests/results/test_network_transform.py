"""The transform of ``run.model()`` is recognised in `rib.score`, unless it was changed."""

from __future__ import annotations

from torchvision.transforms import v2

from rib.data.transform import Transform
from rib.models.evaluation_transform import marked
from rib.results.network import evaluation_transform


def test_a_runs_transform_stands_for_cached_crops_until_it_is_changed():
    recorded = Transform(32, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    function = evaluation_transform(recorded)
    assert marked(function) == recorded and marked(recorded) is recorded
    own = v2.Compose(list(function.transforms))
    assert marked(own) is own
    function.transforms.append(v2.Identity())
    assert marked(function) is function
