"""The player in a real browser: it plays, it scrubs, it shows other runs, and it asks the network for nothing."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.scene import Rollouts, Scene
from traj_diffusion.testing import crossing
from traj_diffusion.viz import player

pytestmark = pytest.mark.browser
Noisy = Callable[..., Rollouts]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page and all that it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1000, "height": 700}, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def value(self, name: str) -> Any:
        return self.page.evaluate(f"window.player.{name}")

    def stage(self) -> bytes:
        self.page.wait_for_timeout(120)
        return bytes(self.page.locator("#stage").screenshot())

    def close_in_peace(self) -> None:
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("file://")] == []
        assert len(self.requests) == 1
        self.page.close()


def test_it_plays_scrubs_and_shows_other_runs(
    browser: Any, tmp_path: Path, noisy: Noisy, rng: np.random.Generator
) -> None:
    scene = crossing()
    watched = Watched(browser, player(scene, noisy(scene, rng, runs=5), tmp_path / "a.html"))
    page = watched.page
    assert (watched.value("time"), watched.value("rollout"), watched.value("playing")) == (0, 0, False)
    now = watched.stage()

    page.click("#play")
    page.wait_for_timeout(600)
    assert watched.value("playing") is True
    page.keyboard.press("Space")  # on the focused button: pressed once, not once by the button and once by the key
    assert watched.value("playing") is False
    assert 0.1 < watched.value("time") < 8
    assert watched.stage() != now

    page.locator("#scrub").evaluate("(bar) => { bar.value = 60; bar.dispatchEvent(new Event('input')); }")
    assert watched.value("time") == pytest.approx(5.0)
    assert page.inner_text("#clock") == "5.0 s"
    first = watched.stage()
    page.select_option("#run", "3")
    assert watched.value("rollout") == 3
    other = watched.stage()
    assert other != first
    for toggle, key in (("all", "o"), ("plan", "p"), ("log", "l")):
        before = watched.value("toggles")[toggle]
        page.locator("#stage").focus()
        page.keyboard.press(key)
        assert watched.value("toggles")[toggle] is not before
        shown = watched.stage()
        assert shown != other
        page.click(f"#{toggle}")
        assert watched.value("toggles")[toggle] is before
        assert watched.stage() == other
    watched.close_in_peace()


def test_time_runs_from_the_first_step_to_the_last(
    browser: Any, tmp_path: Path, noisy: Noisy, rng: np.random.Generator
) -> None:
    scene = crossing()
    watched = Watched(browser, player(scene, noisy(scene, rng), tmp_path / "a.html"))
    watched.page.locator("#stage").focus()
    watched.page.keyboard.press("Home")
    assert watched.value("time") == pytest.approx(-1.0)
    watched.page.keyboard.press("ArrowRight")
    assert watched.value("time") == pytest.approx(-0.9)
    watched.page.keyboard.press("End")
    assert watched.value("time") == pytest.approx(8.0)
    watched.close_in_peace()


def test_the_pointer_names_an_agent_and_its_speed(
    browser: Any, tmp_path: Path, noisy: Noisy, rng: np.random.Generator
) -> None:
    scene = crossing()
    watched = Watched(browser, player(scene, None, tmp_path / "a.html"))
    page = watched.page
    assert watched.value("rollout") == -1
    page.locator("#stage").focus()
    page.keyboard.press("f")  # the ego, which drives at 10 m/s, is then in the middle
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(150)
    assert page.inner_text("#tip").split("\n")[0] == "ego vehicle 1"
    assert page.inner_text("#tip").split("\n")[1].startswith("10.0 m/s")
    before = watched.stage()
    page.mouse.wheel(0, -400)
    assert watched.stage() != before
    watched.close_in_peace()


def test_a_hostile_scene_id_runs_nothing(browser: Any, tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    scene = replace(crossing(), id=hostile)
    watched = Watched(browser, player(scene, noisy(scene, rng), tmp_path / "a.html"))
    assert watched.page.inner_text("#name") == hostile
    assert watched.page.locator("img").count() == 0
    watched.close_in_peace()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_crowd_of_300_in_32_runs_is_shown(
    scheme: str, browser: Any, tmp_path: Path, noisy: Noisy, crowd: Callable[..., Scene], rng: np.random.Generator
) -> None:
    scene = crowd(300)
    path = player(scene, noisy(scene, rng, runs=32), tmp_path / "a.html")
    watched = Watched(browser, path, color_scheme=scheme)
    watched.page.click("#all")
    watched.page.evaluate("window.player.seek(4)")
    assert len(watched.stage()) > 20_000
    assert watched.page.evaluate("document.documentElement.dataset.theme") == scheme
    unnamed = (
        "[...document.querySelectorAll('button, select, input')].filter((e) => !(e.ariaLabel || e.innerText)).length"
    )
    assert watched.page.evaluate(unnamed) == 0
    watched.close_in_peace()
