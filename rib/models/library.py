"""Search the pretrained models that timm and open_clip know by name."""

from __future__ import annotations

from fnmatch import fnmatch


def find_models(pattern: str) -> list[tuple[str, ...]]:
    """Return the arguments of `rib.train` that select each pretrained model of timm or open_clip with a matching name.

    Args:
        pattern: Part of a name, or a pattern with ``*``; of open_clip's models, of the name and the tag together.
    """
    import open_clip
    import timm

    pattern = pattern if "*" in pattern else f"*{pattern}*"
    found: list[tuple[str, ...]] = [
        ("model=timm", f"model.name={name}") for name in timm.list_models(pattern, pretrained=True)
    ]
    for name, tag in open_clip.list_pretrained():
        if fnmatch(f"{name} {tag}".lower(), pattern.lower()):
            found.append(("model=open_clip", f"model.name={name}", f"model.tag={tag}"))
    return found
