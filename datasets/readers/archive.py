"""Our own scene files, `<scene id>.scene.npz`."""

from collections.abc import Iterator
from pathlib import Path

from traj_diffusion.errors import BadRecord, BadScene
from traj_diffusion.scene import Scene, load_scene

NAME = "traj-diffusion scene"
PATTERNS = ("*.scene.npz",)


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is a zip archive with the arrays that every scene has."""
    return head.startswith(b"PK\x03\x04") and b"agents.id.npy" in head


def read(path: Path) -> Iterator[Scene]:
    """Yield the one scene of a file. Raises BadFile, or BadRecord where the scene breaks an invariant."""
    try:
        yield load_scene(path)
    except BadScene as error:
        raise BadRecord(f"{path}, record 0: {error}") from error
