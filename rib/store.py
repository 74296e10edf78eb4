"""Where finished runs live, and how two processes never make the same one twice.

``runs/<data>/<model>/<source>/<method>/<key>/`` holds one run: config.yaml, weights.safetensors (float32, the plain
architecture's keys), predictions/, figures/, log/, env.json, fit.json, last.ckpt while training is unfinished, and
metrics.json, written last and atomically: where it is, the run is trained and finished.

What is unfinished lies beside it, in a folder whose name ends in the claim of the process that makes it
(`rib.claims`). Who takes over from a dead or stalled process first renames that folder, so that the old owner, should
it wake, has nowhere to go on; a finished run appears by a rename, once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.claims import Claim, Claims
from rib.errors import DamagedError, RibError
from rib.files import file_digest, write_atomically
from rib.launch import rank, say
from rib.memo import digest_of
from rib.metrics_file import read as _read_json
from rib.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from rib.question import Ingredient, Question


class TakenOverError(RibError):
    """Another process took this one for dead, and has gone on with what it was making."""


@dataclass(frozen=True)
class Run:
    """One run's folder, finished or not.

    Attributes:
        folder: ``<store>/<data>/<model>/<source>/<method>/<key>``.
    """

    folder: Path

    @property
    def key(self) -> str:
        """The training key, 16 hex digits."""
        return self.folder.name.partition(".")[0]

    @property
    def weights_file(self) -> Path:
        """The final weights."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished fit goes on from."""
        return self.folder / "last.ckpt"

    def views(self) -> list[dict[str, Any]]:
        """Every metrics file of this run, the one first asked for first: other suites, other ways of scoring."""
        return [_read_json(file) for file in sorted(self.folder.glob("metrics*.json"), key=lambda f: (len(f.name), f))]

    def view_file(self, metrics: Mapping[str, Any]) -> Path:
        """Where metrics go: in the place of those that answer the same question, else beside whatever is there."""
        views = {file: _read_json(file) for file in self.folder.glob("metrics*.json")}
        same = next((file for file, view in views.items() if answers(view) == answers(metrics)), None)
        if same is not None or not views:
            return same or self.folder / "metrics.json"
        suite = metrics["suite"].replace("*", "_changed")
        beside = self.folder / f"metrics.{suite}.json"
        if beside not in views and all(view["suite"] != metrics["suite"] for view in views.values()):
            return beside
        return self.folder / f"metrics.{suite}.{digest_of(answers(metrics))}.json"

    def metrics(self, suite: str | None = None) -> dict[str, Any] | None:
        """What the run's metrics say of a suite (default: the one first asked for), or None if they are not there."""
        if suite is None:
            return self.read_json("metrics.json")
        return next((view for view in self.views() if view["suite"] == suite), None)

    def predictions_file(self, dataset: str, score_key: str, variant: str | None = None) -> Path:
        """One file a dataset and way of scoring; those of a curve's other models lie in folders beside."""
        folder = self.folder / "predictions"
        return (folder if variant is None else folder / variant) / f"{dataset}.{score_key}.npz"

    def variants(self, score_keys: Mapping[str, str]) -> list[str]:
        """Labels of a curve's models that were scored on every dataset, by their number."""
        folders = [folder.name for folder in (self.folder / "predictions").glob("*/")]
        whole = (f for f in folders if all(self.predictions_file(n, k, f).is_file() for n, k in score_keys.items()))
        return sorted(whole, key=float)

    def predictions(self, dataset: str, suite: str | None = None) -> Predictions:
        """What the model said about a dataset that this run's metrics report.

        Raises:
            RibError: If the run is unfinished or did not score it.
        """
        metrics = self.metrics(suite)
        if metrics is None or dataset not in metrics["scores"]:
            raise RibError(f"{self.folder} holds no predictions for {dataset}")
        return self.scored(dataset, metrics["scores"][dataset]["key"])

    def scored(self, dataset: str, score_key: str, variant: str | None = None) -> Predictions:
        """The predictions under one score key, of the run's own model or of one on its curve."""
        return Predictions.load(self.predictions_file(dataset, score_key, variant))

    @property
    def is_intact(self) -> bool:
        """Whether the weights are those that were written; reads all of the file. True where there are none.

        A finished run whose fit.json is damaged or gone cannot tell, and is not.
        """
        try:
            fitted = self.read_json("fit.json")
        except DamagedError:
            return False
        if fitted is None:
            return not (self.folder / "metrics.json").is_file()
        expected = fitted["weights"]
        return expected is None or (self.weights_file.is_file() and file_digest(self.weights_file) == expected)

    def weights(self) -> dict[str, Tensor]:
        """The final weights by the plain architecture's names, float32."""
        from safetensors.torch import load_file

        return load_file(self.weights_file)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Put a JSON file into the run's folder, whole or not at all."""
        write_atomically(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run's folder, or None."""
        file = self.folder / name
        return _read_json(file) if file.is_file() else None


class RunStore:
    """All runs under one folder.

    Args:
        root: ``paths.runs``; made when the first run is claimed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, data: str, model: str, source: str, method: str, key: str) -> Run:
        """The place of one run, there or not."""
        return Run(self.root / data / model / source / method / key)

    def place(self, question: Question) -> Run:
        """The place of a question's answer, there or not."""
        key = question.training_key
        return self.run(question.catalog.kind, question.start.name, question.source_name, question.method, key)

    def finished(self, **where: object) -> list[Run]:
        """Finished runs whose metrics.json agrees with everything given, ``finished(method="ewc", seed=0)``.

        One whose metrics.json is damaged, or of a version whose files this one cannot read, is left out and said.
        """
        found = []
        for file in sorted(self.root.glob("*/*/*/*/*/metrics.json")):
            try:
                metrics = _read_json(file) if _is_run(file) else None
            except RibError as error:
                say(f"left out: {error}")
                continue
            if metrics is not None and all(metrics.get(k) == v for k, v in where.items()):
                found.append(Run(file.parent))
        return found

    def one(self, **where: object) -> Run:
        """The only finished run that agrees.

        Raises:
            RibError: If there is none, or more than one.
        """
        found = self.finished(**where)
        if len(found) != 1:
            raise RibError(f"expected one run with {where} in {self.root}, found {len(found)}")
        return found[0]

    def seconds(self, model: str, method: str) -> float | None:
        """What such a run has taken here before, else any that trained this model; None if there is none."""
        taken = [m for run in self.finished(model=model) if (m := run.metrics()) and m["source"] != "none"]
        same = [m for m in taken if m["method"] == method] or taken
        return same[-1]["seconds"]["fit"] + same[-1]["seconds"]["evaluate"] if same else None

    @property
    def claims(self) -> Claims:
        """Who is making what."""
        return Claims(self.root / "claims")

    @contextmanager
    def claim(self, run: Run, needed_bytes: int = 0) -> Iterator[Claim | None]:
        """Hold a run's key while making it; waits while another living process does.

        Ranks above zero of a multi-process run hold nothing (None): rank zero holds the key for all.

        Args:
            run: What will be made.
            needed_bytes: Disk space that making it takes.

        Raises:
            RibError: If the folder cannot be written or the disk is too full, before any work is done.
            TakenOverError: If what failed inside failed because another process has taken over.
        """
        if rank() > 0:
            yield None
            return
        self._check_writable(run, needed_bytes)
        with self.claims.hold(run.key) as claim:
            try:
                yield claim
            except Exception as error:
                if claim.held:
                    raise
                raise _taken_over(run) from error

    def recover(self, run: Run) -> None:
        """Publish a claimed run that was killed between its last file and its publication; move damaged metrics aside.

        What a damaged metrics.json said is measured again from the predictions.
        """
        for file in run.folder.glob("metrics*.json"):
            try:
                _read_json(file)
            except DamagedError as error:
                say(f"{error}: moved aside, and measured again from the predictions")
                os.replace(file, file.with_suffix(".damaged"))
        if run.folder.exists():
            return
        for left in (*self._left(run), self._replaced(run)):
            if (left / "metrics.json").is_file():
                os.replace(left, run.folder)
                return

    def begin(self, run: Run, claim: Claim, again: bool = False) -> Run:
        """Where to make a claimed run: in what a dead or stalled process left of it, if it left anything.

        Args:
            run: Its place.
            claim: On its key.
            again: Make it beside the finished one, which `publish` then replaces.

        Returns:
            The place itself where the run is finished and only another view of it is wanted.
        """
        finished = run.metrics() is not None
        if finished and not again:
            return run
        work = run.folder.with_name(f"{run.key}.{claim.token}")
        unfinished = [run.folder] if run.folder.exists() and not finished else []
        for left in (*unfinished, *self._left(run)):  # its place first, which has to be free in the end
            try:
                os.replace(left, work)
            except FileNotFoundError:
                continue
            return Run(work)
        work.mkdir(parents=True)
        return Run(work)

    def publish(self, work: Run, run: Run, claim: Claim, again: bool = False) -> None:
        """Put what was made in its place, by a rename.

        Args:
            work: Finished, from `begin`.
            run: Its place.
            claim: On its key.
            again: Replace a finished run that is there.

        Raises:
            TakenOverError: If another process has taken over meanwhile, whose result then holds.
        """
        if work == run:
            return
        if not claim.held:
            raise _taken_over(run)
        try:
            if run.folder.exists() and again:
                ready = run.folder.with_name(f"{run.key}.ready")
                os.rename(work.folder, ready)
                os.rename(run.folder, self._replaced(run))
                os.rename(ready, run.folder)
            else:
                os.rename(work.folder, run.folder)
        except OSError as error:  # the folder is gone, or another's result is there
            raise _taken_over(run) from error
        for left in (*self._left(run), self._replaced(run)):
            shutil.rmtree(left, ignore_errors=True)

    def _replaced(self, run: Run) -> Path:
        """Where a finished run is for the moment in which another takes its place."""
        return run.folder.with_name(f"{run.key}.old")

    def _left(self, run: Run) -> list[Path]:
        """Folders that other processes left beside a run's place, the latest first."""
        folders = [f for f in run.folder.parent.glob(f"{run.key}.*") if f.is_dir() and f != self._replaced(run)]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)

    def _check_writable(self, run: Run, needed_bytes: int) -> None:
        probe = self.root / "claims" / f".probe.{os.getpid()}"
        try:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"rib")
            probe.unlink()
        except OSError as error:
            raise RibError(
                f"paths.runs: cannot write to {self.root} ({error.strerror}); choose another folder"
            ) from error
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise RibError(
                f"paths.runs: this run needs {needed_bytes / 1e6:.0f} MB in {self.root}, {free / 1e6:.0f} MB are free; "
                "make room or choose another folder"
            )


def _taken_over(run: Run) -> TakenOverError:
    return TakenOverError(
        f"another process has taken over {run.folder}, since this one gave no sign of life for too long; give the "
        "command again to wait for its result"
    )


def _is_run(metrics: Path) -> bool:
    """Leaves out what is unfinished (``<key>.<claim>``)."""
    return "." not in metrics.parent.name


def view_of(run: Run, question: Question) -> dict[str, Any] | None:
    """A run's metrics for the suite, if they stand on exactly the images and the way of scoring that are asked for.

    None where it has none, or they are damaged, or what the run was made from has other weights by now. Of weights
    from elsewhere also where they go by another name or precision now: these are written anew, nothing is scored.
    """
    protocol = question.protocol
    wanted = (question.suite, protocol["targets"], protocol["reported"], protocol["experiment"], question.scores)
    try:
        view = next((view for view in run.views() if answers(view) == wanted), None)
    except DamagedError:
        return None
    if view is None or out_of_date(view, question, run) is not None:
        return None
    if question.external is not None:
        said = (question.options, protocol["precision"])
        return view if (view["options"], view["protocol"]["precision"]) == said else None
    return view


def out_of_date(view: Mapping[str, Any], question: Question, run: Run) -> str | None:
    """The first run that another was made from and that holds other weights by now; one that is gone is none.

    Args:
        view: What the metrics of the run say.
        question: What it answers.
        run: Its folder, in the store of those that it was made from.
    """
    for part, then in zip(question.needs, made_from(view), strict=True):
        place = part_of(part, RunStore(run.folder.parents[4]))
        now = weights_digest(place)
        if now is None:
            continue
        if now != then["weights"]:
            return part.label
        if part.question is not None and (own := place.metrics()) is not None:
            deeper = out_of_date(own, part.question, place)
            if deeper is not None:
                return f"{part.label} is out of date itself: {deeper}"
    return None


def made_from(view: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run's metrics say of the runs that it was made from: label, source, fingerprint, weights."""
    return [*view.get("ingredients", ()), *filter(None, (view.get("probe"),))]


def out_of_date_in(store: RunStore) -> set[str]:
    """Keys of finished runs that were made from others which hold other weights by now, or are such themselves."""
    runs = store.finished()
    weights = {run.key: weights_digest(run) for run in runs}
    used = {run.key: made_from(run.metrics() or {}) for run in runs}
    old: set[str] = set()
    while more := {
        key
        for key, parts in used.items()
        if key not in old
        and any(
            part["fingerprint"] in old or weights.get(part["fingerprint"], part.get("weights")) != part.get("weights")
            for part in parts
        )
    }:
        old |= more
    return old


def part_of(part: Ingredient, store: RunStore) -> Run:
    """Where the run lies, or would, that another is made from."""
    if part.folder is not None:
        return Run(part.folder)
    assert part.question is not None, "an ingredient is a folder or a question"
    return store.place(part.question)


def weights_digest(run: Run) -> str | None:
    """Of a finished run's weights, as written; None where there is no such run, or it has none."""
    return (run.read_json("fit.json") or {}).get("weights") if run.metrics() is not None else None


def unscored(question: Question, run: Run) -> list[str]:
    """Datasets that a run has no predictions for."""
    return [n for n, key in question.score_keys.items() if not run.predictions_file(n, key).is_file()]


def answers(view: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a metrics file answers; two that answer the same never lie beside one another."""
    protocol = view["protocol"]
    return view["suite"], protocol.get("targets"), protocol.get("reported"), protocol["experiment"], view["scores"]
