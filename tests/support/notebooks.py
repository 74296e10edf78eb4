"""Execute the notebooks: ``python -m tests.support.notebooks FOLDER`` writes FOLDER/NAME.ipynb from notebooks/NAME.py.

``make notebooks`` writes them beside their scripts. Runs go to RIB_RUNS or a temporary folder. What a notebook prints
is kept without what goes to stderr, and with ``runs`` in the place of a folder of this machine.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(file.stem for file in HERE.glob("*.py"))


def execute(name: str, runs: Path) -> nbformat.NotebookNode:
    """A notebook made again from its script, with what its cells show."""
    notebook = jupytext.read(HERE / f"{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name.replace('_', '-')}-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([out for out in cell.outputs if out.get("name") != "stderr"])
            for out in cell.outputs:
                for part in (out, out.get("data", {})):
                    part |= {kind: shown(kind, content, runs) for kind, content in part.items()}
    notebook.metadata.pop("language_info", None)
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join outputs printed in one go: where they are cut depends on what stderr said in between."""
    found: list[nbformat.NotebookNode] = []
    for out in outputs:
        if found and out.output_type == found[-1].output_type == "stream":
            found[-1].text += out.text
        else:
            found.append(out)
    return found


def shown(kind: str, content: Any, runs: Path) -> Any:
    """Return an output as committed: no folder of this machine or colour of a terminal, and small pictures."""
    if kind == "image/png":
        picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
        picture.thumbnail((800, 1200), Image.Resampling.LANCZOS)
        small = io.BytesIO()
        picture.quantize(128).save(small, "PNG", optimize=True)
        return base64.b64encode(small.getvalue()).decode()
    if not isinstance(content, str):
        return content
    return re.sub(r"\x1b\[[\d;]*m", "", content).replace(str(runs.resolve()), "runs")


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    # A kernel shows pictures only where nobody has chosen another backend, as the Makefile has.
    os.environ.pop("MPLBACKEND", None)
    os.environ.pop("RIB_DATA", None)  # they are about the built-in data
    # Where the environment is active, as Jupyter usually finds it, `rib` is a command.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("RIB_RUNS", folder)
        for name in sys.argv[2:] or NAMES:
            nbformat.write(execute(name, Path(os.environ["RIB_RUNS"])), out / f"{name}.ipynb")
            print(out / f"{name}.ipynb", flush=True)


if __name__ == "__main__":
    main()
