"""Description of one domain of a user's suite: where its images are, and how their classes are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Form = Literal["folder", "glob", "manifest", "shards", "python"]


@dataclass(frozen=True)
class Domain:
    """Location of a domain's images, and the rule that reads their classes.

    Attributes:
        form: ``folder`` (of class folders), ``glob`` (pattern of image files), ``manifest`` (table of paths and
            labels), ``shards`` (tar files of key.jpg + key.cls) or ``python`` (a function of the user's).
        place: The folder, pattern or file relative to the suite's root, or ``module:function``.
        class_from: For a glob, the rule that reads the class from a path: ``parent``, ``stem``, or a regular
            expression with a group ``class``.
        select: For a manifest, the value of its column ``domain`` that belongs to this domain; None: all rows.
        class_names: Name of the suite's class for each name that this domain uses instead; None leaves out the images
            of that name.
        unpack_to: Folder of the cache into which images that are no files of their own (``shards``, ``python``) are
            unpacked; None if the suite was loaded without a cache.
    """

    form: Form
    place: str
    class_from: str = "parent"
    select: str | None = None
    class_names: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    unpack_to: Path | None = None
