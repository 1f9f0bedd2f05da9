"""The floors of the house: a room imports only rooms on lower floors. docs/architecture.md draws them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"errors", "geometry", "kinematics", "diffusion"},
    {"scene"},
    {"datasets", "metrics", "viz"},
    {"model"},
    {"policies"},
    {"sim_adapter"},
    {"evaluation", "training", "variants", "testing"},
    {"doctor"},
    {"cli", "__init__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAY_ALSO = {("diffusion", "errors"), ("geometry", "errors"), ("kinematics", "errors"), ("kinematics", "geometry")}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return (parts[0] if parts[0] in ("datasets", "sim_adapter", "configs") else parts[1]).removesuffix(".py")


def sources() -> list[Path]:
    return sorted(
        p for folder in ("traj_diffusion", "datasets", "sim_adapter", "configs") for p in (ROOT / folder).rglob("*.py")
    )


def imported_rooms(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
            if node.module == "traj_diffusion":
                names = [f"traj_diffusion.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}: relative import"
        found += [(name.split(".")[1], node.lineno) for name in names if name.startswith("traj_diffusion.")]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_lower_floors(path: Path) -> None:
    room = room_of(path)
    for other, line in imported_rooms(path):
        if room == "configs" or other in (room, "configs"):
            continue
        assert FLOOR[other] < FLOOR[room] or (room, other) in MAY_ALSO, f"{path}:{line}: {room} imports {other}"


def test_the_rule_would_notice_a_breach(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from traj_diffusion.model import Denoiser\n")
    assert imported_rooms(bad) == [("model", 2)]
    assert not FLOOR["model"] < FLOOR["metrics"]


def test_diffusion_speaks_no_driving_word() -> None:
    words = ("agent", "lane", "vehicle", "traffic", "scene", "heading", "simulat")
    for path in (ROOT / "traj_diffusion" / "diffusion").rglob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        assert not [word for word in words if word in text], path
