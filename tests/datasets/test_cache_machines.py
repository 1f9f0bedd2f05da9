"""A cache made by the machines of a real Ray cluster: two nodes, each with an object store and workers of its own.

Both run on this machine, so what is not tested is a network between them, and sources on a disk that they share.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra [ray]")

from traj_diffusion.datasets.cache import prepare_cache
from traj_diffusion.datasets.cache.pool import over_parts
from traj_diffusion.scene import save_scene
from traj_diffusion.testing import busy_scene

STARTS = 120.0  # s, at most
STORE = 100_000_000  # bytes


@pytest.fixture
def cluster(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each, which are two calls of `ray start`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--block",
        "--num-cpus",
        "1",
        "--disable-usage-stats",
    ]
    command += ["--object-store-memory", str(STORE), "--node-ip-address", "127.0.0.1"]
    head = ["--head", "--port", address.split(":")[1], "--include-dashboard", "false"]
    nodes = []
    with (tmp_path / "ray.log").open("wb") as log:
        for role in (head, ["--address", address]):
            nodes.append(subprocess.Popen([*command, *role], stdout=log, stderr=log, start_new_session=True))
            for _ in range(int(STARTS)):
                if (tmp_path / "ray.log").read_text().count("Ray runtime started") == len(nodes):
                    break
                time.sleep(1)
        yield address
    for node in reversed(nodes):
        os.killpg(node.pid, signal.SIGTERM)
    for node in nodes:
        node.wait(60)


def node_of(seconds: float) -> str:
    """Return on which node of the cluster this runs."""
    import ray

    time.sleep(seconds)
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
def test_two_machines_make_the_same_bytes(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scenes"
    for number in range(14):
        scene = busy_scene(np.random.default_rng(number), agents=4, polylines=12, scene_id=f"s{number}")
        save_scene(scene, folder / f"{number:02d}.scene.npz")
    monkeypatch.setattr("traj_diffusion.datasets.cache.prepare.FILES_PER_PART", 2)
    prepare_cache([str(folder)], tmp_path / "one")
    prepare_cache([str(folder)], tmp_path / "two", ray=cluster)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert sum(name.endswith(".shard") for name in one) == 7
    assert one == two
    assert len(set(over_parts(node_of, [2.0] * 6, ray=cluster))) == 2
