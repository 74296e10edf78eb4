"""Weights from the Hugging Face hub: from the local cache if possible, else downloaded, else a one-sentence error.

timm and open_clip try an unreachable hub five times for each possible file name, 50 s in all; here one probe decides.
The cache is the hub's own (``HF_HOME``), shared with timm and open_clip, so files that they downloaded are found, and
a cache copied from another machine is enough.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from rib.errors import RibError

PROBE_SECONDS = 5.0
"""Time after which the hub counts as unreachable, seconds, including the look-up of its name."""


def fetch(model: str, repo: str, files: Sequence[str]) -> Path:
    """Return the local path of the weights file of a repository on the hub, downloading it if it is not cached.

    Args:
        model: Name of the model, for messages.
        repo: Repository, such as ``timm/vit_base_patch16_clip_224.laion2b_ft_in1k``.
        files: Possible names of the file, best first.

    Raises:
        RibError: If the file is not cached and cannot be downloaded.
    """
    if (file := _find_cached(repo, files)) is not None:  # also offline, and without asking the hub for a newer one
        return file
    _check_reachable(model, repo)
    return _download(model, repo, files)


def is_cached(repo: str, files: Sequence[str]) -> bool:
    """Return True if one of the files is in the local cache, so that `fetch` needs no network."""
    return _find_cached(repo, files) is not None


def fetch_metadata(model: str, repo: str, files: Sequence[str]) -> tuple[str, str, int]:
    """Return the name, SHA-256 and size in bytes of a repository's weights file, without downloading it.

    Args:
        model: Name of the model, for messages.
        repo: Repository on the hub.
        files: Possible names of the file, best first.

    Raises:
        RibError: If the hub cannot be reached or does not have the file.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    _check_reachable(model, repo)
    for file in files:
        try:
            metadata = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file))
        except errors.RemoteEntryNotFoundError:
            continue
        except Exception as error:
            raise _missing_error(model, repo, f"{constants.ENDPOINT} gives no metadata for them ({error})") from error
        # The etag of a large file is its SHA-256; of a small one, which is not in LFS, it is git's SHA-1.
        if metadata.size is not None and re.fullmatch("[0-9a-f]{64}", metadata.etag or ""):
            return file, str(metadata.etag), metadata.size
    raise _missing_error(model, repo, f"the repository at {constants.ENDPOINT} has no {' and no '.join(files)}")


def _find_cached(repo: str, files: Sequence[str]) -> Path | None:
    import huggingface_hub as hub
    from huggingface_hub import constants

    cached = (hub.try_to_load_from_cache(repo, file, cache_dir=constants.HF_HUB_CACHE) for file in files)
    return next((Path(file) for file in cached if isinstance(file, str)), None)


def check(model: str, repo: str) -> None:
    """Raise an error unless a repository is in the local cache or the hub can be reached.

    Called before timm or open_clip is imported, which takes seconds, so that the error comes at once.

    Args:
        model: Name of the model, for messages.
        repo: Repository on the hub.

    Raises:
        RibError: If nothing of the repository is cached and the hub cannot be reached.
    """
    from huggingface_hub import constants

    # The cache's layout, since huggingface_hub's own look-up needs the names of the files, which the library knows.
    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots")
    if not (folder.is_dir() and any(folder.iterdir())):
        _check_reachable(model, repo)


def _check_reachable(model: str, repo: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _missing_error(model, repo, "HF_HUB_OFFLINE forbids downloading them")
    if not is_reachable():
        raise _missing_error(model, repo, f"the hub {constants.ENDPOINT} cannot be reached")


def is_reachable(seconds: float = PROBE_SECONDS) -> bool:
    """Return True if the hub (or the mirror in ``HF_ENDPOINT``) answers within ``seconds``, through proxies if set."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    answers: queue.Queue[bool] = queue.Queue()

    def probe() -> None:
        try:
            response = hub.get_session().head(constants.ENDPOINT, timeout=seconds, follow_redirects=False)
            answers.put(response.status_code < 500)  # with 5xx a proxy reports that it cannot reach the hub
        except Exception:
            answers.put(False)

    # In a thread, since the timeout of an HTTP client does not cover the look-up of the host's name.
    threading.Thread(target=probe, daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return False


def _download(model: str, repo: str, files: Sequence[str]) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    for file in files:
        try:
            return Path(hub.hf_hub_download(repo, file, cache_dir=constants.HF_HUB_CACHE))
        except errors.RemoteEntryNotFoundError:
            continue
        except errors.RepositoryNotFoundError as error:
            raise _missing_error(
                model, repo, f"{constants.ENDPOINT} has no such repository, or not without HF_TOKEN"
            ) from error
        except Exception as error:
            # A full or read-only disk is not the hub's fault. Such errors have an errno, those of the network do not.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = " ".join(str(error).split())
            raise _missing_error(model, repo, f"the download from {constants.ENDPOINT} failed ({reason})") from error
    raise _missing_error(model, repo, f"the repository at {constants.ENDPOINT} has no {' and no '.join(files)}")


def _missing_error(model: str, repo: str, why: str) -> RibError:
    from huggingface_hub import constants

    return RibError(
        f"model={model}: its weights ({repo}) are not in the cache {constants.HF_HUB_CACHE}, and {why}; connect to "
        "the internet once, set HF_ENDPOINT to a mirror, copy the cache (HF_HOME) from another machine, or give "
        "model.weights=FILE"
    )
