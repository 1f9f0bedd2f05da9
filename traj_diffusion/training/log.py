"""What a training tells of itself: JSON lines for programs, TensorBoard files for people."""

import json
from collections.abc import Mapping
from pathlib import Path

from traj_diffusion.scene.archive import atomic_path

FILE = "log.jsonl"


class Log:
    """Appends to `folder`/log.jsonl and to `folder`/tensorboard, from `step` on: what a killed run wrote later goes."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / FILE
        if self._path.is_file():
            kept = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            with atomic_path(self._path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, seconds: float, figures: Mapping[str, float]) -> None:
        """Add the figures of a step."""
        line = {"step": step, "hours": seconds / 3600, **figures}
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a run that was killed as it wrote
        return 2**63
