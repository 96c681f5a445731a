"""An executed notebook without what belongs to one run on one machine, so that every run writes the same bytes."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def settle(notebook: NotebookNode, root: Path) -> None:
    """Take out what belongs to one run on one machine: times, paths, progress bars, widget state, the scheduler.

    Parameters
    ----------
    notebook : NotebookNode
        Executed; changed in place. What is settled already stays as it is.
    root : Path
        The project's folder, of which every text says "<project>".
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = _KERNELSPEC
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws a random one
            kept = [line for line in cell.source.splitlines(keepends=True) if not line.startswith("scheduler = ")]
            cell.source = without_places("".join(kept), root)
        if cell.cell_type == "code":
            cell.outputs = [without_places(output, root) for output in _joined_streams(cell.outputs)]
            for output in cell.outputs:  # without its state a view is an error message; its text stays
                output.get("data", {}).pop(_WIDGET_VIEW, None)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join each stream of a cell into one output, and drop the lines of stderr that progress bars left."""
    streams: dict[str, NotebookNode] = {}
    kept = []
    for output in outputs:
        if output.get("name") in streams:
            streams[output.name].text += output.text
            continue
        kept.append(output)
        if output.output_type == "stream":
            streams[output.name] = output
    if "stderr" in streams:
        lines = streams["stderr"].text.split("\n")
        streams["stderr"].text = "".join(f"{line}\n" for line in lines if line.strip() and "\r" not in line)
    return [o for o in kept if o.output_type != "stream" or o.text.strip()]


def without_places(value: Any, root: Path) -> Any:
    """Replace the folders of this machine in every text of a JSON-like value."""
    if isinstance(value, dict):
        # base64 may spell a short path by chance
        clean = {k: v if k.startswith("image/p") else without_places(v, root) for k, v in value.items()}
        return NotebookNode(clean) if isinstance(value, NotebookNode) else clean
    if isinstance(value, list):
        return [without_places(item, root) for item in value]
    if not isinstance(value, str):
        return value
    places = {
        os.environ.get("TSNS_DATA"): "$TSNS_DATA",
        os.environ.get("TSNS_CACHE"): "$TSNS_CACHE",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        str(root): "<project>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    for place in sorted((p for p in places if p and p != "/"), key=len, reverse=True):
        value = re.sub(rf"(?<![\w.-]){re.escape(place)}(?!\w)", places[place], value)
    return re.sub(r"ipykernel_\d+/\d+", "ipykernel", value)  # "file" of a warning raised in a cell
