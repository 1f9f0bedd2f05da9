"""Run the notebook of docs/ and keep its outputs, in a form whose differences can be read.

    python tools/run_notebook.py                  # runs it and stores outputs in place
    python tools/run_notebook.py --check RUN      # writes what it gives to RUN; the notebook must be in normal form

The kernel is this very Python, in a folder of its own, so that nothing is found or left beside the notebook.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "diffusion_basics_colab.ipynb"
MAX_BYTES = 1_500_000
CELL_SECONDS = 900  # a minute's work, with many others on the same core
ANSI = r"\x1b\[[0-9;]*m"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="RUN", type=Path, help="write the outcome here and change nothing else")
    arguments = parser.parse_args()

    # Before nbclient is imported: these are read then, and by the kernel.
    with tempfile.TemporaryDirectory() as folder:
        for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
            os.environ[name] = str(Path(folder, name.lower()))
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # its warning would be the notebook's first output
        os.environ.pop("MPLBACKEND", None)  # pictures belong into the notebook
        workplace = Path(folder, "workplace")
        workplace.mkdir()
        return run(NOTEBOOK, arguments.check, workplace)


def run(path: Path, check: Path | None, workplace: Path) -> int:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    stored = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(stored, as_version=4)
    complaints = [f"{path.name}: {line}" for line in untidy(notebook)] if check else []
    if check and stored != as_text(notebook):
        complaints.append(f"{path.name}: not in the form that this tool writes")
    began = time.perf_counter()
    try:
        execute(notebook, workplace)
    except CellExecutionError as error:
        print(f"{path.name}: {re.sub(ANSI, '', str(error))}", file=sys.stderr)
        return 1
    text = as_text(notebook)
    (check or path).write_text(text, encoding="utf-8")
    print(f"{path.name}: ran in {time.perf_counter() - began:.0f} s, {len(text.encode()):,} bytes")
    complaints += [f"the run: {line}" for line in untidy(notebook)]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


def execute(notebook, workplace: Path) -> None:
    """Run all cells in a new kernel of this Python."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from traitlets import Unicode

    class OwnKernel(AsyncKernelManager):
        # Through files: TCP could be listened to by everybody on the machine. Windows has nothing else.
        if os.name != "nt":
            transport = Unicode("ipc")
            ip = Unicode(str(workplace.with_name("kernel")))

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(workplace)}},
        record_timing=False,
    )
    client.execute()


def as_text(notebook) -> str:
    """Return the notebook as it is stored: no versions, no times, nothing of the machine in its metadata."""
    import nbformat

    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {name: cell.metadata[name] for name in ("cellView", "jupyter", "tags") if name in cell.metadata}
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.metadata = {}
                if "image/png" in output.data:
                    output.data = {"image/png": output.data["image/png"]}
    return nbformat.writes(notebook) + "\n"


def joined(outputs: list) -> list:
    """Return outputs with neighbouring pieces of one stream as one: where they are cut is a matter of timing."""
    kept: list = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def untidy(notebook) -> list[str]:
    """Return what must not be stored: errors, warnings, paths of this machine, too much, cells that did not run."""
    found = []
    if len(as_text(notebook).encode()) > MAX_BYTES:
        found.append(f"larger than {MAX_BYTES:,} bytes")
    homes = [str(Path.home()), str(NOTEBOOK.parents[1]), sys.prefix, tempfile.gettempdir()]
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None:
            found.append(f"{cell.id}: has not run")
        for output in cell.outputs:
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {output.get('ename', 'stderr')}: {output.get('evalue', text)[:200]}")
            found += [f"{cell.id}: shows a path under {home}" for home in homes if home in text]
    return found


if __name__ == "__main__":
    sys.exit(main())
