"""The player's file: what it holds can be read back, what users named cannot break out of it."""

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.errors import BadRollouts
from traj_diffusion.scene import Map, Rollouts, Scene
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.viz import player
from traj_diffusion.viz.packing import pack

Noisy = Callable[..., Rollouts]
HOSTILE = "</script><img src=x onerror=alert(1)>{{script}}<!--"


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the data element."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        name = attributes.get("id") or tag
        self.text[name] = self.text.get(name, "") + data


def parse(path: Path) -> tuple[Elements, dict[str, Any]]:
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    return elements, json.loads(elements.text["data"])


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Undo `pack` the slow way, in unbounded integers, from its description alone."""
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    count = len(raw) // 4
    folded = [sum(raw[plane * count + i] << (8 * plane) for plane in range(4)) for i in range(count)]
    values = np.array([number // 2 if number % 2 == 0 else -(number + 1) // 2 for number in folded], np.int64)
    return np.cumsum(np.cumsum(values.reshape(packed["shape"]), -1), -1)


def test_packing_is_undone_exactly(rng: np.random.Generator) -> None:
    for shape in ((7,), (2, 3, 5), (4, 1), (0, 3), (3, 0)):
        values = rng.integers(-(2**28), 2**28, shape)
        assert np.array_equal(unpack(pack(values)), values)


def test_positions_come_back_to_a_centimetre(
    tmp_path: Path, noisy: Noisy, crowd: Callable[..., Scene], rng: np.random.Generator
) -> None:
    scene = crowd(12)
    rollouts = noisy(scene, rng)
    assert rollouts.futures is not None
    assert rollouts.futures_origin is not None
    _, data = parse(player(scene, rollouts, tmp_path / "a.html"))
    centre = np.array(data["centre"])
    for stored, wanted in (
        (data["log"]["xy"], scene.agents.position[..., :2]),
        (data["runs"]["xy"], rollouts.position[..., :2]),
        (data["futures"]["xy"], rollouts.futures + rollouts.futures_origin),
    ):
        assert np.abs(np.moveaxis(unpack(stored), 0, -1) / 100 + centre - wanted).max() < 0.01
    turned = np.abs(unpack(data["runs"]["heading"]) / 1000 - rollouts.heading) % (2 * np.pi)
    assert np.minimum(turned, 2 * np.pi - turned).max() < 0.001
    assert data["now"] == scene.current_index
    assert data["runs"]["first"] == scene.current_index + 1


def test_steps_that_are_not_valid_stay_so(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    scene = crossing()
    rollouts = noisy(scene, rng)
    gone = replace(rollouts, valid=rollouts.valid.copy(), position=rollouts.position.copy())
    gone.valid[1, 2, 40:] = False
    gone.position[1, 2, 40:] = np.nan
    _, data = parse(player(scene, gone, tmp_path / "a.html"))
    assert np.array_equal(unpack(data["runs"]["valid"]).astype(bool), gone.valid)


def test_a_light_that_was_not_seen_is_told_from_one_of_unknown_state(tmp_path: Path) -> None:
    scene = crossing()
    lights = replace(scene.lights, observed=scene.lights.observed.copy(), state=scene.lights.state.copy())
    lights.observed[0, :4] = False
    lights.state[0, 4:9] = 0
    _, data = parse(player(replace(scene, lights=lights), None, tmp_path / "a.html"))
    assert unpack(data["lights"]["state"])[0, :11].tolist() == [255] * 4 + [0] * 5 + [4] * 2


def test_a_hostile_scene_id_stays_text(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    scene = replace(crossing(), id=HOSTILE, source=HOSTILE)
    rollouts = replace(noisy(scene, rng), provenance={"model": HOSTILE})
    plain, _ = parse(player(crossing(), noisy(crossing(), rng), tmp_path / "plain.html"))
    elements, data = parse(player(scene, rollouts, tmp_path / "hostile.html"))
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in plain.tags]
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)
    assert elements.text["title"].strip() == HOSTILE
    assert (data["id"], data["source"], data["model"]) == (HOSTILE, HOSTILE, HOSTILE)


def test_the_page_names_no_address_and_lets_nothing_load(tmp_path: Path) -> None:
    path = player(crossing(), None, tmp_path / "a.html")
    text = path.read_text(encoding="utf-8")
    assert not re.findall(
        r"https?:|//\w|@import|url\(|\beval\b|new Function|innerHTML", re.sub(r"(?m)^\s*//.*$", "", text)
    )
    policies = [a["content"] for tag, a in parse(path)[0].tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in str(policies[0])


def test_300_agents_in_32_runs_stay_below_3_megabytes(
    tmp_path: Path, noisy: Noisy, crowd: Callable[..., Scene], rng: np.random.Generator
) -> None:
    scene = crowd(300)
    rollouts = noisy(scene, rng, runs=32, futures=8)
    # Motion that a smooth model makes: the centimetre noise of `noisy` is left out, and so is its shaking of headings.
    smooth = np.linspace(rollouts.position[:, :, 0], rollouts.position[:, :, -1], 80, axis=2)
    smooth[..., :2] += np.sin(np.linspace(0, 3, 80))[:, None] * rng.normal(0, 2, (32, 300, 1, 2))
    heading = rollouts.heading[:, :, :1] + np.linspace(0, 1, 80) * rng.normal(0, 0.5, (32, 300, 1))
    path = player(scene, replace(rollouts, position=smooth, heading=heading.astype(np.float32)), tmp_path / "a.html")
    assert path.stat().st_size < 3_000_000


def test_scenes_without_map_lights_or_rollouts_have_a_player(tmp_path: Path) -> None:
    for scene in (straight_road(speeds=(3.0,)), replace(crossing(), map=Map.empty()), straight_road().history_only()):
        assert parse(player(scene, None, tmp_path / "a.html"))[1]["runs"] is None


def test_what_is_recorded_where_nothing_is_valid_does_not_matter(tmp_path: Path) -> None:
    scene = crossing()
    for name in ("position", "size", "heading", "velocity"):
        getattr(scene.agents, name)[1] = np.nan
    scene.agents.valid[1] = False
    _, data = parse(player(scene, None, tmp_path / "a.html"))
    assert not unpack(data["log"]["xy"])[:, 1].any()


@pytest.mark.parametrize(("agents", "steps"), [(0, 80), (3, 0)])
def test_rollouts_of_nobody_or_of_no_step_have_a_player(
    agents: int, steps: int, tmp_path: Path, noisy: Noisy, rng: np.random.Generator
) -> None:
    rollouts = noisy(crossing(), rng, futures=None)
    cut = replace(
        rollouts,
        agent_id=rollouts.agent_id[:agents],
        kind=rollouts.kind[:agents],
        position=rollouts.position[:, :agents, :steps],
        heading=rollouts.heading[:, :agents, :steps],
        valid=rollouts.valid[:, :agents, :steps],
    )
    _, data = parse(player(crossing(), cut, tmp_path / "a.html"))
    assert unpack(data["runs"]["xy"]).shape == (2, 4, agents, steps)


def test_rollouts_of_another_scene_are_refused(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    with pytest.raises(BadRollouts, match="cannot be drawn"):
        player(straight_road(), noisy(crossing(), rng), tmp_path / "a.html")
