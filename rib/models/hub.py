"""Weights on the Hugging Face hub: from its cache without touching the network, else downloaded, else one sentence.

timm and open_clip would try an unreachable hub five times over for each name a file may have, 50 s in all; here one
probe decides. The cache is the hub's own (``HF_HOME``), shared with timm and open_clip, so that a file fetched by
either is found, and a cache copied from another machine is enough.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from rib.errors import RibError

PROBE_SECONDS = 5.0
"""How long the hub may take to answer at all; name servers that never answer count as unreachable, too."""


def fetch(model: str, repo: str, files: Sequence[str]) -> Path:
    """A repository's file of weights on this machine, downloaded if it is not in the cache.

    Args:
        model: As the user named it, for messages.
        repo: ``timm/vit_base_patch16_clip_224.laion2b_ft_in1k``.
        files: Names that the file may have, best first.

    Raises:
        RibError: If it is not cached and cannot be had, saying where it was looked for and what else would do.
    """
    if (found := _cached(repo, files)) is not None:
        return found
    _check_reachable(model, repo)
    return _download(model, repo, files)


def is_cached(repo: str, files: Sequence[str]) -> bool:
    """Whether `fetch` would not touch the network."""
    return _cached(repo, files) is not None


def record(model: str, repo: str, files: Sequence[str]) -> tuple[str, str, int]:
    """What the hub says of a repository's weights without sending them: the file's name, SHA-256 and bytes.

    Raises:
        RibError: As `fetch`.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    _check_reachable(model, repo)
    for file in files:
        try:
            found = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file))
        except errors.RemoteEntryNotFoundError:
            continue
        except Exception as error:
            raise _missing(model, repo, f"{constants.ENDPOINT} says nothing of them ({error})") from error
        if found.size is not None and re.fullmatch("[0-9a-f]{64}", found.etag or ""):
            return file, str(found.etag), found.size
    raise _missing(model, repo, f"the repository at {constants.ENDPOINT} has no {' and no '.join(files)}")


def _cached(repo: str, files: Sequence[str]) -> Path | None:
    import huggingface_hub as hub
    from huggingface_hub import constants

    found = (hub.try_to_load_from_cache(repo, file, cache_dir=constants.HF_HUB_CACHE) for file in files)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def check(model: str, repo: str) -> None:
    """Say at once, before timm or open_clip is imported, that nothing of a repository is here and none can be had.

    Raises:
        RibError: As `fetch`.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots")
    if not (folder.is_dir() and any(folder.iterdir())):
        _check_reachable(model, repo)


def _check_reachable(model: str, repo: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _missing(model, repo, "HF_HUB_OFFLINE forbids to fetch them")
    if not is_reachable():
        raise _missing(model, repo, f"the hub {constants.ENDPOINT} cannot be reached")


def is_reachable(seconds: float = PROBE_SECONDS) -> bool:
    """Whether the hub (or the mirror in ``HF_ENDPOINT``) answers at all; honours proxies."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    answers: queue.Queue[bool] = queue.Queue()

    def ask() -> None:
        try:
            response = hub.get_session().head(constants.ENDPOINT, timeout=seconds, follow_redirects=False)
            answers.put(response.status_code < 500)  # above, a proxy says that it found nobody
        except Exception:
            answers.put(False)

    # In a thread of its own, since no timeout covers the look-up of a name.
    threading.Thread(target=ask, daemon=True).start()
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
            raise _missing(
                model, repo, f"{constants.ENDPOINT} has no such repository, or not without HF_TOKEN"
            ) from error
        except Exception as error:
            # A disk that is full or read-only is not the hub's doing; those have a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = " ".join(str(error).split())
            raise _missing(model, repo, f"the download from {constants.ENDPOINT} failed ({reason})") from error
    raise _missing(model, repo, f"the repository at {constants.ENDPOINT} has no {' and no '.join(files)}")


def _missing(model: str, repo: str, why: str) -> RibError:
    from huggingface_hub import constants

    return RibError(
        f"model={model}: its weights ({repo}) are not in the cache {constants.HF_HUB_CACHE}, and {why}; go online "
        f"once, set HF_ENDPOINT to a mirror, copy the cache (HF_HOME) from another machine, or give model.weights=FILE"
    )
