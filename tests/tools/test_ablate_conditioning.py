"""tools/ablate_conditioning.py hides what it says from a policy, compares scenes in pairs, and tells ways apart."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from traj_diffusion.evaluation import RunSettings
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Csr, LaneType, MapKind, Origin, Plan, PlanRequest, Routes, Scene, save_scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import crossing, make_map, make_scene

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("ablate_conditioning", ROOT / "tools" / "ablate_conditioning.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Witness(ConstantVelocity):
    """Constant velocity that remembers what it was shown."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []
        self.requests: list[PlanRequest] = []

    def encode(self, scene: Scene) -> Any:
        self.scenes.append(scene)
        return super().encode(scene)

    def plan(self, request: PlanRequest) -> Plan:
        self.requests.append(request)
        return super().plan(request)


def test_each_part_is_hidden_and_nothing_else(tool: Any) -> None:
    scene = crossing()
    routes = Routes(Csr.from_lists([[0] for _ in range(len(scene.agents))]), np.ones(len(scene.agents), np.uint8))
    scene = replace(scene, routes=routes)
    shown = {}
    for part in tool.PARTS:
        witness = Witness()
        rollout(scene, tool.Hiding(witness, part), rollouts=1)
        known, states = witness.scenes[0], [request.state for request in witness.requests]
        assert len(states) == 16  # hidden at every plan, not at the first alone
        shown[part] = (
            len(known.map) > 0,
            all(len(state.light_lane) > 0 for state in states),
            bool(known.routes.origin.any()),
            any(state.valid[..., :-1].any() for state in states),
        )
    assert len(scene.lights) > 0
    assert shown == {
        "map": (False, False, False, True),  # lights and routes are lanes of it
        "lights": (True, False, True, True),
        "routes": (True, True, False, True),
        "history": (True, True, True, False),
    }
    assert tool.Hiding(ConstantVelocity(), "map").name == "constant_velocity without map"


def test_a_ratio_is_of_the_same_scenes(tool: Any) -> None:
    whole = np.array([[1.0, 1], [2, 1], [6, 1]])
    worse = whole * np.array([1.5, 1])
    found = tool.ratio(np.stack([worse, whole]))
    assert found == pytest.approx({"mean": 4.5, "ratio": 1.5, "low": 1.5, "high": 1.5})  # scenes differ, the ratio not
    noisy = tool.ratio(np.stack([np.array([[3.0, 1], [2, 1], [1, 1]]), np.ones((3, 2))]))
    assert noisy["low"] < noisy["ratio"] == 2.0 < noisy["high"]
    pooled = tool.ratio(np.array([[[1.0, 1], [0, 9]], [[0, 1], [1, 9]]]))
    assert (pooled["mean"], pooled["ratio"], pooled["low"]) == (0.1, 1.0, None)  # some draws have none to divide by
    assert tool.ratio(np.array([[[1.0, 4]], [[0, 4]]]))["ratio"] is None


def test_what_no_scene_has_is_not_taken_away(tool: Any) -> None:
    assert tool.present([crossing(), fork()]) == {"map", "lights", "history"}


def fork() -> Scene:
    """A lane that parts after 20 m into left, straight and right; a car at 10 m/s whose log goes straight."""
    ahead = np.linspace(0, 80, 81)
    stem = np.stack([np.linspace(-10, 20, 31), np.zeros(31)], -1)
    arms = [np.stack([20 + np.cos(a) * ahead, np.sin(a) * ahead], -1) for a in (0.8, 0.0, -0.8)]
    lanes = [(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in (stem, *arms)]
    features = make_map(lanes, [[1, 2, 3], [], [], []])
    return make_scene(np.zeros((1, 2)), np.array([[10.0, 0]]), features=features)


def test_a_vehicle_at_a_fork_is_given_the_logs_way_none_and_another_one(tool: Any) -> None:
    scene = fork()
    (one,) = tool.deciding(scene)
    ways = [way.rows for way in one.ways]
    assert sorted(ways) == [(0, 1), (0, 2), (0, 3)]
    assert ways[one.logged] == (0, 2)
    given = {name: tool.with_routes(scene, [one], name).routes for name in tool.GIVEN}
    assert given["the log's way"].lanes[0].tolist() == [0, 2]
    assert given["no route"].origin.tolist() == [Origin.ABSENT]
    assert given["another way"].lanes[0].tolist() == list(ways[one.other]) != [0, 2]
    counts = tool.at_junctions(ConstantVelocity(), scene, RunSettings(rollouts=2))  # which is deaf to routes
    straight = {"log": 2, "other": 0, "none": 0}
    assert counts == {"vehicles": 1, **dict.fromkeys(tool.GIVEN, straight)}
    assert tool.deciding(scene.history_only()) == []


def test_it_goes_on_where_it_was_and_writes_the_page(tool: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tool, "load_model", lambda name, guidance=None: ConstantVelocity())
    save_scene(fork(), tmp_path / "made" / "fork.scene.npz")
    words = ["score", str(tmp_path / "made"), "--out", str(tmp_path / "out"), "--runs", "2"]
    first, again = (CliRunner().invoke(tool.main, words, catch_exceptions=False) for _ in range(2))
    assert first.stdout == again.stdout
    found = json.loads(first.stdout)
    one = found["sets"]["made"]
    assert list(one["figures"]) == ["whole", "no map", "no history"]
    assert one["absent"] == ["lights", "routes"]
    assert one["junctions"]["taken"]["no route"] == {"log": 2, "other": 0, "none": 0}
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    figures.write_text(first.stdout)
    page.write_text(f"before\n{tool.START}old\n{tool.END}after\n")
    result = CliRunner().invoke(tool.main, ["write", str(figures), str(page)], catch_exceptions=False)
    assert result.exit_code == 0
    text = page.read_text()
    assert text == f"before\n{tool.START}{tool.block(found)}{tool.END}after\n"
    assert "They have no lights and no routes." in text
    assert "| made: 1 vehicles at a fork, given |" in text
    assert "| the log's way | 100.0% | 0.0% | 0.0% |" in text


def test_a_figure_that_grows_by_a_tenth_is_bold(tool: Any) -> None:
    figure = {"mean": 2.0, "ratio": 1.25, "low": 1.1, "high": 1.4, "scenes": 3}
    assert tool._cell(figure, "no map") == "2.000 (**1.25, 1.10 to 1.40**)"
    assert tool._cell(figure | {"ratio": 1.05, "low": None}, "no map") == "2.000 (1.05)"
    assert tool._cell(figure, "whole") == "2.000"
    assert tool._cell(figure | {"ratio": None}, "no lights") == "2.000 (**from none**)"
    assert tool._cell(figure | {"ratio": None, "mean": 0.0}, "no lights") == "0.000"
    assert tool._cell(None, "no map") == "–"
