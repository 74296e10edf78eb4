"""Images from files: rib's loader, the first time and from its cache, against PIL in a DataLoader with two workers.

    python -m benchmarks.input_pipeline

Batches of 64 photographs of about 100 kB, resized and cropped to 224 px. rib delivers bytes, which its models normalise
on their device; PIL's pipeline delivers floats, normalised. What rib's normalisation adds on the CPU is a row of its
own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm

from benchmarks import photographs
from benchmarks.naive import Domain, Naive
from benchmarks.problem import domain_of, resolved, transform_of
from benchmarks.side_by_side import SMALL, Taken, clocks, compare, heading, timed
from rib.models.build import build
from rib.runs.images import data_of

IMAGES = 32 if SMALL else 384
CACHED_EPOCHS = 3
"""Epochs from the cache whose mean is taken, as one of them is short."""


def main() -> None:
    """Print the table."""
    heading(f"Input pipeline, {IMAGES} photographs: PIL, rib")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = photographs.build(folder / "data", IMAGES, ("imagenet_val", "imagenet_v2"))
        spec = resolved(
            *("model=efficientnet_lite0", f"data.root={root}", "data.allow_incomplete=true", "trainer=cpu"),
            *("dataset=imagenet_v2", "suite.targets=[imagenet_v2]", f"paths.cache={folder}/cache"),
        )
        assert spec.source is not None
        transform = timm.data.create_transform(**transform_of(spec.start.transform), is_training=False)
        domain = Domain(transform=transform, **domain_of(spec.source))
        model = build(spec.start)
        naive = Naive(lambda: model, {}, {})

        def with_pil() -> None:
            count = sum(len(labels) for _, labels in naive.loader(domain, batch_size=64, shuffle=True))
            assert count == IMAGES

        def epoch(loader: Any, normalise: bool = False) -> None:
            count = 0
            for images, labels, _ in loader:
                count += len(labels)
                if normalise:
                    model.normalise(images)
            assert count == IMAGES

        def first() -> None:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            epoch(data_of(spec).train_dataloader())

        def cached(normalise: bool) -> Callable[[], Taken]:
            def run() -> Taken:
                loader = data_of(spec).train_dataloader()
                epoch(loader)  # whatever opens the cache is not part of an epoch from it
                begun = clocks()
                for _ in range(CACHED_EPOCHS):
                    epoch(loader, normalise)
                ended = clocks()
                return Taken(*((e - b) / CACHED_EPOCHS for b, e in zip(begun, ended, strict=True)))

            return run

        pil = ("PIL", timed(with_pil))
        first()  # imports are not timed
        compare("first time", pil, ("rib", timed(first)), at_least=2, usual_rounds=5)
        bytes_moved = 2 * IMAGES * 3 * 224**2
        compare(
            "from the cache",
            pil,
            ("rib", cached(False)),
            at_least=15,
            usual_rounds=5,
            limit=lambda taken: _copy_limit(bytes_moved, taken.wall),
        )
        compare("from the cache, normalised", pil, ("rib", cached(True)), usual_rounds=5)


def _copy_limit(moved: float, took: float) -> str:
    from benchmarks.limits import limit_of

    return limit_of(0, moved, took)


if __name__ == "__main__":
    main()
