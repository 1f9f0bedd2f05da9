"""Scores of scenes as lines of a file, so that an evaluation goes on where it was killed."""

import json
from collections.abc import Mapping
from pathlib import Path

from traj_diffusion.errors import BadInput
from traj_diffusion.metrics import SceneScore


class Rows:
    """A file of JSON lines: first the settings, then one score per scene. Each is computed once.

    A file of other settings is refused; a last line that a kill cut off is dropped. Raises BadInput.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        self._done: dict[tuple[str, str], SceneScore] = {}
        first = json.dumps({"settings": dict(settings)}, sort_keys=True)
        *lines, rest = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [""]
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(first + "\n", encoding="utf-8")
            return
        if lines[0] != first:
            raise BadInput(f"{path}: holds scores of other settings ({lines[0][:200]}); choose another --out")
        for number, line in enumerate(lines[1:], 2):
            try:
                row = json.loads(line)
                score = SceneScore.from_row(row)
                self._done[score.scene_id, row["input"]] = score
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{path}, line {number}: {error}; remove the file to begin anew") from error
        if rest:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def find(self, scene_id: str, digest: str = "") -> SceneScore | None:
        """Return the score of a scene that was made of an input of this digest, if there is one."""
        return self._done.get((scene_id, digest))

    def add(self, score: SceneScore, digest: str = "") -> SceneScore:
        """Write a score to the file, and return it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(score.to_row() | {"input": digest}) + "\n")
        self._done[score.scene_id, digest] = score
        return score
