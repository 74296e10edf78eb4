"""Read the images of a domain, whatever its form, or load the saved record of them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.data.suites.domain import Domain
from rib.data.suites.entry_point import entry_digest, entry_point, entry_source
from rib.data.suites.folder_images import read_folder
from rib.data.suites.glob_images import read_glob, split_pattern
from rib.data.suites.images import DomainImages, subfolders
from rib.data.suites.manifest_images import base_of, read_manifest
from rib.data.suites.shards import shard_files, shards_digest, shards_source
from rib.data.suites.unpack import check_count, unpack
from rib.errors import MissingDatasetError, RibError, nearest
from rib.runtime.files import digest_of

FILES = "files"
"""Folder beside a suite's unpacked images for the digests of its shards."""


def read_domain(
    spec: DatasetSpec, root: Path, records: Path | None = None, rescan: bool = False, skip_missing: bool = False
) -> DomainImages:
    """List the images of a domain.

    Args:
        spec: The catalog entry of a suite's domain.
        root: The suite's root.
        records: Folder for saved listings, or None to save none.
        rescan: List again even if nothing looks changed.
        skip_missing: Leave out images of a manifest that do not exist.

    Raises:
        MissingDatasetError: If its folder does not exist.
        RibError: If the domain cannot be read.
    """
    domain = _domain_of(spec)
    folder = find_domain_folder(spec, root)
    own = [str(folder.resolve()), str(root.resolve()), domain.form, domain.place, domain.class_from, domain.select]
    record = None if records is None else records / f"{spec.name}-{digest_of(own)}.npz"
    if record is not None and not rescan and (saved := DomainImages.saved(record, folder)) is not None:
        return saved
    begun = time.time_ns()
    match domain.form:
        case "glob":
            images = read_glob(root, domain.place, domain.class_from, spec.title)
        case "manifest":
            images = read_manifest(root, root / domain.place, domain.select, spec.title, skip_missing)
        case "folder":
            images = read_folder(folder, spec.title)
        case "shards" | "python":
            images = read_folder(folder, spec.title)
            check_count(folder, len(images.paths), spec.title)
    if record is not None and images.paths and not skip_missing:
        with suppress(RibError):  # no room for a record is no reason to stop
            images.save(record, begun)
    return images


def find_domain_folder(spec: DatasetSpec, root: Path) -> Path:
    """Return the folder that the paths of a domain's images are relative to; what is packed is unpacked first.

    Args:
        spec: The catalog entry of a suite's domain.
        root: The suite's root.

    Raises:
        MissingDatasetError: If the folder does not exist.
        RibError: If the shards or the entry point are invalid, or cannot be unpacked.
    """
    domain = _domain_of(spec)
    if not root.is_dir():
        raise MissingDatasetError(
            f"{spec.title}: expected the suite's images in {root}, which does not exist; correct root in its file, or "
            "set data.root"
        )
    if domain.form in ("shards", "python"):
        return _unpacked(spec, domain, root)
    if domain.form == "manifest":
        return base_of(root, root / domain.place, domain.select)
    inner = domain.place if domain.form == "folder" else split_pattern(domain.place)[0]
    folder = root / inner if inner else root
    if not folder.is_dir():
        hint = nearest(inner, subfolders(root)) or "; correct it in the suite's file"
        raise MissingDatasetError(f"{spec.title}: expected the folder {folder}, which does not exist{hint}")
    return folder


def _domain_of(spec: DatasetSpec) -> Domain:
    if spec.domain is None:
        raise RibError(f"{spec.name}: expected the suite's file to find its images; give suite=FILE.yaml")
    return spec.domain


def _unpacked(spec: DatasetSpec, domain: Domain, root: Path) -> Path:
    if domain.unpack_to is None:
        raise RibError(f"{spec.title}: expected a folder to unpack its images into, got none; set paths.cache")
    if domain.form == "shards":
        files = shard_files(root, domain.place, spec.title)
        digest = shards_digest(files, domain.unpack_to / FILES)
        source = shards_source(files, spec.title)
    else:
        images = entry_point(domain.place, root, spec.title)
        digest = entry_digest(images, domain.place)
        source = entry_source(images, domain.place, spec.title)
    return unpack(domain.unpack_to / f"{spec.name}-{digest}", source)
