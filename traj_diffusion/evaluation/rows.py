"""Scores of scenes as lines of a file, so that an evaluation goes on where it was killed."""

import json
from collections.abc import Callable, Mapping
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

    def score(self, scene_id: str, digest: str, make: Callable[[], SceneScore]) -> SceneScore:
        """Return the score of a scene, from the file where it was made of an input of this digest."""
        if (scene_id, digest) not in self._done:
            found = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found.to_row() | {"input": digest}) + "\n")
            self._done[scene_id, digest] = found
        return self._done[scene_id, digest]
