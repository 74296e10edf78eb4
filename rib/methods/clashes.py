"""Pairs of methods that cannot be combined, with the reason; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping

ADAPTERS = ("lora", "visual_prompt")
"""Methods that add trainable parts to the network."""

HOLDING = ("ewc", "l2sp", "spd", "ftp")
"""Methods that keep each trained weight near its pretrained value."""

CLASHES: Mapping[frozenset[str], str] = {
    frozenset(pair): why
    for *pair, why in (
        (
            "linear_probe",
            "lora",
            "a linear probe freezes everything but the head, LoRA trains adapters in other layers",
        ),
        ("linear_probe", "visual_prompt", "a linear probe trains only the head, a visual prompt only the frame"),
        ("linear_probe", "lp_ft", "lp_ft begins with a linear probe of its own"),
        ("other_start", "lp_ft", "the probe's head would take the place of the shuffled one"),
        ("linear_probe", "freeze_embed", "a linear probe freezes the embedding already"),
        ("lora", "visual_prompt", "each trains its own few parameters and freezes all others"),
        ("lora", "freeze_embed", "LoRA freezes the embedding already"),
        ("layer_decay", "surgical", "both set the learning rate of each layer"),
        *(
            ("visual_prompt", other, "a visual prompt trains only its frame, no layer")
            for other in ("layer_decay", "surgical")
        ),
        *(
            (adapter, other, f"{other} would hold the adapter, not the weights")
            for adapter in ADAPTERS
            for other in HOLDING
        ),
    )
}
"""Pairs of methods that cannot be combined, with the reason."""
