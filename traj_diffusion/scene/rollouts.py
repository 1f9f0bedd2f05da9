"""R closed-loop runs of one scene, as any model can write them: one `<scene id>.rollouts.npz` per scene."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.errors import BadFile, BadRollouts
from traj_diffusion.scene.archive import file_stem, read_archive, write_archive

SCHEMA_VERSION = 1


def rollouts_path(folder: Path, scene_id: str) -> Path:
    """Return where the rollouts of a scene lie in a folder."""
    return folder / f"{file_stem(scene_id)}.rollouts.npz"


@dataclass(frozen=True)
class Rollouts:
    """What happened in R runs from `first_step` (the one after the current index) on, in the scene's frame."""

    scene_id: str
    first_step: int
    dt: float
    agent_id: Int64[np.ndarray, " A"]
    kind: UInt8[np.ndarray, " A"]
    position: Float64[np.ndarray, "R A F 3"]
    heading: Float32[np.ndarray, "R A F"]
    valid: Bool[np.ndarray, "R A F"]
    size: Float32[np.ndarray, "R A 3"] | None = None
    weights: Float32[np.ndarray, " R"] | None = None
    futures: Float32[np.ndarray, "K A Fp 2"] | None = None  # the K joint futures first sampled in run 0, from its start
    futures_origin: Float64[np.ndarray, " 2"] | None = None  # add it to `futures` to get positions
    provenance: Mapping[str, Any] = field(default_factory=dict)  # model, seed, replan_every, futures, steps, version

    @property
    def runs(self) -> int:
        """Number of runs R."""
        return self.valid.shape[0]

    def save(self, folder: Path | str) -> Path:
        """Write `<scene id>.rollouts.npz` into the folder, whole or not at all, and return its path."""
        path = rollouts_path(Path(folder), self.scene_id)
        arrays = {
            name: getattr(self, name)
            for name in ("agent_id", "kind", "position", "heading", "valid", *_OPTIONAL)
            if getattr(self, name) is not None
        }
        header = {
            "scene_id": self.scene_id,
            "first_step": self.first_step,
            "dt": self.dt,
            "provenance": dict(self.provenance),
        }
        write_archive(path, "rollouts", SCHEMA_VERSION, header, arrays)
        return path

    @classmethod
    def load(cls, path: Path | str) -> "Rollouts":
        """Read a file that `save`, or any other program, wrote.

        Raises BadRollouts where the file is not such an archive or its arrays do not fit each other.
        """
        try:
            header, arrays = read_archive(Path(path), "rollouts", SCHEMA_VERSION)
        except BadFile as error:
            raise BadRollouts(str(error)) from error
        try:
            rollouts = cls(
                scene_id=str(header["scene_id"]),
                first_step=int(header["first_step"]),
                dt=float(header["dt"]),
                agent_id=arrays["agent_id"].astype(np.int64),
                kind=arrays["kind"].astype(np.uint8),
                position=arrays["position"].astype(np.float64),
                heading=arrays["heading"].astype(np.float32),
                valid=arrays["valid"].astype(bool),
                provenance=dict(header.get("provenance", {})),
                **{name: arrays[name] for name in _OPTIONAL if name in arrays},
            )
        except KeyError as error:
            raise BadRollouts(
                f"{path}: no entry {error.args[0]!r}; docs/rollouts.md lists what a file holds"
            ) from error
        rollouts.check(str(path))
        return rollouts

    def check(self, where: str) -> None:
        """Raise BadRollouts, naming `where`, unless shapes agree and values are finite where valid."""
        runs, agents, steps = self.valid.shape if self.valid.ndim == 3 else (-1, -1, -1)
        wanted = {
            "valid": (runs, agents, steps),
            "agent_id": (agents,),
            "kind": (agents,),
            "position": (runs, agents, steps, 3),
            "heading": (runs, agents, steps),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape or -1 in shape:
                raise BadRollouts(
                    f"{where}: {name} has shape {getattr(self, name).shape}, valid has {self.valid.shape}; "
                    "wanted are valid [R, A, F], agent_id and kind [A], position [R, A, F, 3], heading [R, A, F]"
                )
        if len(np.unique(self.agent_id)) != agents:
            raise BadRollouts(f"{where}: agent ids repeat")
        finite = np.isfinite(self.position).all(-1) & np.isfinite(self.heading)
        if not finite[self.valid].all():
            run, agent, step = np.argwhere(self.valid & ~finite)[0]
            raise BadRollouts(
                f"{where}: run {run}, agent {self.agent_id[agent]}, step {step}: position or heading is not finite"
            )


_OPTIONAL = ("size", "weights", "futures", "futures_origin")
