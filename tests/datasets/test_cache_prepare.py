"""From files to a cache: every file accounted for, the same bytes whoever makes them, and nothing lost by a kill."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from traj_diffusion.datasets.cache import Cache, CacheReport, pool, prepare, prepare_cache, write_cache
from traj_diffusion.datasets.cache.pool import over_parts
from traj_diffusion.datasets.womd_writer import write_womd
from traj_diffusion.errors import BadFile, BadInput, HostError, MissingExtra
from traj_diffusion.scene import save_scene
from traj_diffusion.testing import busy_scene, crossing, straight_road

PER_PART = "traj_diffusion.datasets.cache.prepare.FILES_PER_PART"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen files of one scene each."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(14):
        scene = busy_scene(np.random.default_rng(number), agents=4, polylines=12, scene_id=f"s{number}")
        save_scene(scene, folder / f"{number:02d}.scene.npz")
    return folder


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def by_name(report: CacheReport) -> dict[str, prepare.FileReport]:
    return {Path(file.file).name: file for file in report.files}


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    source = tmp_path / "in"
    save_scene(replace(straight_road(), report=(("ids made up", 2),)), source / "deep" / "a.scene.npz")
    write_womd(source / "two.tfrecord", [crossing(), replace(straight_road(steps=198), id="long")])
    write_womd(source / "cut.tfrecord", [replace(crossing(), id="c"), crossing()])
    (source / "cut.tfrecord").write_bytes((source / "cut.tfrecord").read_bytes()[:-60])
    slow, empty = straight_road(), straight_road(speeds=())
    slow.agents.valid[:, 10] = False
    save_scene(slow, source / "nobody.scene.npz")
    save_scene(empty, source / "map.scene.npz")
    (source / "sd_damaged.pkl").write_bytes(b"no pickle")
    (source / "README.md").write_text("# hello")
    (source / "net.xml").write_text("<net version='1'></net>")
    (source / "story.xosc").write_text("<?xml version='1.0'?><OpenSCENARIO></OpenSCENARIO>")
    (source / "void").touch()
    (source / ".hidden").write_text("x")
    (source / "list.json").write_text(json.dumps([{"file": "two.tfrecord"}]))
    (source / "poem").write_text("Whan that Aprille")

    report = prepare_cache([str(source), str(source / "two.tfrecord")], tmp_path / "out")
    found = by_name(report)
    assert {Path(file.file) for file in report.files} == {path for path in source.rglob("*") if path.is_file()}
    read = {name: (file.scenes, file.windows, file.agents) for name, file in found.items() if file.scenes}
    assert read == {"a.scene.npz": (1, 1, 2), "two.tfrecord": (2, 12, 5), "cut.tfrecord": (1, 1, 3)}
    assert found["a.scene.npz"].repaired == {"ids made up": 2}
    assert found["nobody.scene.npz"].left_out == {"no agent is valid at its current index": 1}
    assert found["map.scene.npz"].left_out == found["net.xml"].left_out == {"it has no agents": 1}
    assert {Path(file.file).name for file in report.broken} == {"cut.tfrecord", "sd_damaged.pkl"}
    why = {name: file.why for name, file in found.items() if file.why}
    assert why.pop("cut.tfrecord", "").startswith(
        f"after 1 scenes, which are kept: {source / 'cut.tfrecord'}, record 1"
    )
    assert why == {
        "sd_damaged.pkl": "not in a format that can be read",
        "README.md": "no recording: text",
        "story.xosc": "no recording: a storyboard for a simulator (OpenSCENARIO)",
        "void": "an empty file",
        ".hidden": "a hidden file",
        "list.json": "no recording: a list, of scenes perhaps, which are read where they lie",
        "poem": "not in a format that can be read",
    }
    assert len(Cache(tmp_path / "out")) == report.scenes == 4
    assert report.shared_ids == 0
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [file["file"] for file in kept["files"]] == [file.file for file in report.files]
    assert (kept["scenes"], kept["broken"]) == (4, 2)
    text = report.text()
    assert all(file.file in text for file in report.files if not file.scenes or file.broken)


def test_a_list_takes_the_scenes_that_it_names(tmp_path: Path) -> None:
    write_womd(tmp_path / "three.tfrecord", [replace(crossing(), id=name) for name in "abc"])
    wanted = tmp_path / "list.json"
    wanted.write_text(json.dumps([{"file": "three.tfrecord", "id": name} for name in "cac"]))
    prepare_cache([str(wanted)], tmp_path / "out")
    assert Cache(tmp_path / "out").ids == ["c", "a"]
    prepare_cache([str(wanted), str(tmp_path / "three.tfrecord")], tmp_path / "all")
    assert Cache(tmp_path / "all").ids == ["a", "b", "c"]


def test_the_bytes_do_not_depend_on_the_workers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PER_PART, 3)
    seen: list[tuple[int, int]] = []
    prepare_cache([str(folder)], tmp_path / "one", progress=lambda *done: seen.append(done))
    prepare_cache([str(folder)], tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("*.shard"))) == 5
    assert seen == [(done, 14) for done in (0, 3, 6, 9, 12, 14)]
    assert Cache(tmp_path / "one").ids == [f"s{number}" for number in range(14)]


def test_killed_at_random_moments_it_goes_on_and_loses_and_doubles_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(PER_PART, 2)
    prepare_cache([str(folder)], tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    out, killed = tmp_path / "out", 0
    for shards in range(1, 6):  # of seven that there are to be
        child = context.Process(target=prepare_cache, args=([str(folder)], out))
        child.start()
        while child.is_alive() and len(list(out.glob("*.shard"))) < shards:
            time.sleep(0.0002)
        time.sleep(float(rng.uniform(0, 0.002)))
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if not (out / "index.json").exists():
            with pytest.raises(BadFile, match="not a finished cache"):
                Cache(out)
    assert killed > 1
    prepare_cache([str(folder)], out)
    assert content(out) == content(tmp_path / "whole")


def test_what_is_finished_is_not_made_again_and_what_is_damaged_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PER_PART, 5)
    out = tmp_path / "out"
    prepare_cache([str(folder)], out)
    whole = content(out)
    first, second, third = sorted(out.glob("*.shard"))
    data = bytearray(second.read_bytes())
    data[40] ^= 1
    second.write_bytes(data)
    third.unlink()
    (out / "index.json").unlink()
    (out / ".000001.shard.7.tmp").write_bytes(b"left by a killed writer")
    before, made = first.stat().st_ino, []
    real = prepare._make
    monkeypatch.setattr(prepare, "_make", lambda part: made.append(part.shard.name) or real(part))
    prepare_cache([str(folder)], out)
    assert made == [second.name, third.name]
    assert first.stat().st_ino == before
    assert content(out) == whole


def test_a_folder_that_holds_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_cache([str(folder / "00.scene.npz")], out)
    before = content(out)
    with pytest.raises(BadFile, match="a cache of other files"):
        prepare_cache([str(folder / "01.scene.npz")], out)
    assert content(out) == before
    with pytest.raises(BadFile, match="not an empty folder"):
        prepare_cache([str(folder)], folder)
    with pytest.raises(BadFile, match="not an empty folder"):
        write_cache(out, [crossing()])
    (out / "plan.json").write_text("{")
    with pytest.raises(BadFile, match=r"plan\.json: damaged"):
        prepare_cache([str(folder / "00.scene.npz")], out)


def test_sources_that_changed_in_between_are_noticed(tmp_path: Path) -> None:
    path = save_scene(crossing(), tmp_path / "a.scene.npz")
    prepare_cache([str(path)], tmp_path / "out")
    save_scene(straight_road(), path)
    with pytest.raises(BadFile, match="have changed"):
        prepare_cache([str(path)], tmp_path / "out")


def test_without_any_scene_there_is_no_cache_but_a_report(tmp_path: Path) -> None:
    poem = tmp_path / "poem"
    poem.write_text("Whan that Aprille")
    with pytest.raises(BadFile, match=f"none of 1 files has a scene for a cache: {poem}: not in a format"):
        prepare_cache([str(poem)], tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["files"][0]["file"] == str(poem)
    with pytest.raises(BadFile, match="no such file"):
        prepare_cache([str(tmp_path / "nowhere")], tmp_path / "out2")
    (tmp_path / "void").mkdir()
    with pytest.raises(BadFile, match="without a file"):
        prepare_cache([str(tmp_path / "void")], tmp_path / "out2")


def test_a_target_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadFile, match="cannot be written"):
        prepare_cache([str(folder)], tmp_path / "file" / "out")


def _on_a_small_disk(folder: Path, out: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        prepare_cache([str(folder)], out)
    except BadFile as error:
        os._exit(7 if "000000.shard: cannot be written (" in str(error) else 1)
    os._exit(0)


def test_a_full_disk_is_one_error_and_leaves_no_shard(folder: Path, tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_on_a_small_disk, args=(folder, tmp_path / "out"))
    child.start()
    child.join()
    assert child.exitcode == 7
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]


def test_a_cache_inside_its_own_source_does_not_swallow_itself(tmp_path: Path) -> None:
    save_scene(crossing(), tmp_path / "a.scene.npz")
    out = tmp_path / "cache"
    first = prepare_cache([str(tmp_path)], out)
    (out / "index.json").unlink()
    assert prepare_cache([str(tmp_path)], out) == first
    assert len(first.files) == 1


def test_a_file_that_cannot_be_read_to_its_end_is_not_taken_for_a_full_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare.read_scenes

    def failing(entries: list[prepare.Entry]) -> object:
        if entries[0].file.name == "03.scene.npz":
            raise OSError(5, "Input/output error")
        return real(entries)

    monkeypatch.setattr(prepare, "read_scenes", failing)
    report = prepare_cache([str(folder)], tmp_path / "out")
    assert [(Path(file.file).name, file.why) for file in report.broken] == [
        ("03.scene.npz", "cannot be read (Input/output error)")
    ]
    assert report.scenes == 13


@pytest.mark.slow
def test_a_worker_that_keeps_dying_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ATTEMPTS", 2)
    with pytest.raises(HostError, match="a worker died 2 times, with 2 of 2 parts to do"):
        list(over_parts(os._exit, [1, 2], workers=2))


def test_no_workers_at_all_is_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(over_parts(len, [], workers=0))


def test_an_unexpected_error_of_a_reader_names_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(entries: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(prepare, "read_scenes", broken)
    with pytest.raises(ZeroDivisionError) as raised:
        prepare_cache([str(folder)], tmp_path / "out")
    assert raised.value.__notes__ == [f"while {folder / '00.scene.npz'} was read"]


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"traj-diffusion\[ray\]"):
        list(over_parts(len, ["a"], ray="auto"))


class StandIn(ModuleType):
    """What `over_parts` asks of Ray, done at once."""

    down = False

    def init(self, address: str, **options: object) -> None:
        if address == "nowhere":
            raise Exception("no answer")

    def remote(self, **options: object) -> object:
        return lambda job: SimpleNamespace(remote=job)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def wait(self, waiting: list[object]) -> tuple[list[object], list[object]]:
        return waiting[-1:], waiting[:-1]  # not in the order in which they were handed out

    def get(self, done: list[object]) -> list[object]:
        return done

    def shutdown(self) -> None:
        self.down = True


def test_machines_make_the_same_bytes_with_a_stand_in_for_ray(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PER_PART, 3)
    stand_in = StandIn("ray")
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    prepare_cache([str(folder)], tmp_path / "one")
    prepare_cache([str(folder)], tmp_path / "ray", ray="auto")
    assert content(tmp_path / "one") == content(tmp_path / "ray")
    assert stand_in.down
    with pytest.raises(BadInput, match="no Ray cluster answers at 'nowhere': no answer"):
        list(over_parts(len, ["a"], ray="nowhere"))


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.slow
def test_machines_make_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PER_PART, 3)
    prepare_cache([str(folder)], tmp_path / "one")
    prepare_cache([str(folder)], tmp_path / "ray", ray="local")
    assert content(tmp_path / "one") == content(tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds children in /proc")
def test_workers_end_when_their_parent_is_killed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from traj_diffusion.datasets.cache import prepare, prepare_cache; prepare.FILES_PER_PART = 1\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__': prepare_cache([sys.argv[1]], Path(sys.argv[2]), workers=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, "-P", str(script), str(folder), str(tmp_path / "out")])
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*.shard")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert len(children) >= 2
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    prepare_cache([str(folder)], tmp_path / "whole")
    monkeypatch.setattr(PER_PART, 1)
    prepare_cache([str(folder)], tmp_path / "out")
    assert Cache(tmp_path / "out").ids == Cache(tmp_path / "whole").ids


@pytest.mark.data
@pytest.mark.slow
def test_one_call_takes_all_real_recordings_and_the_cache_is_trained_on(shared: Path, tmp_path: Path) -> None:
    from traj_diffusion.model import ModelConfig
    from traj_diffusion.training import TrainConfig, train

    report = prepare_cache([str(shared / "data")], tmp_path / "cache", workers=2)
    there = {os.path.abspath(path) for path in (shared / "data").rglob("*") if path.is_file()}
    assert {file.file for file in report.files} == there
    assert all(file.scenes or file.why or file.left_out for file in report.files)
    assert not report.broken
    womd = [file for file in report.files if "/womd/" in file.file]
    assert (len(womd), sum(file.scenes for file in womd)) == (33, 37)
    assert report.bytes / report.scenes < 25_000
    tiny = ModelConfig(width=16, n_heads=2, encoder_layers=1, denoiser_layers=1, near_map=4, near_lights=2)
    config = TrainConfig(model=tiny, steps=3, batch=4, noise_draws=1, save_every=3)
    losses: list[float] = []
    cache = Cache(tmp_path / "cache", window_stride=10)
    assert len(cache) > report.scenes

    def heard(step: int, means: Mapping[str, float]) -> None:
        losses.extend([means["loss"]] if means else [])

    train(config, cache, tmp_path / "run", "t", "real scenes", heard)
    assert losses
    assert np.isfinite(losses).all()
