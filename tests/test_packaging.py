"""What gets installed, and what must not be."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import traj_diffusion

ROOT = Path(__file__).resolve().parents[1]
MAPPED = {
    "datasets": "traj_diffusion.datasets",
    "sim_adapter": "traj_diffusion.sim_adapter",
    "configs": "traj_diffusion.configs",
}
# Shipped beside the code: pattern in the wheel -> where the files lie in the repository.
DATA = {
    "traj_diffusion/py.typed": "traj_diffusion/py.typed",
    "traj_diffusion/configs/*/*.yaml": "configs/*/*.yaml",
    "traj_diffusion/datasets/bundled/*.scene.npz": "datasets/bundled/*.scene.npz",
    "traj_diffusion/model/checkpoints/*.safetensors": "traj_diffusion/model/checkpoints/*.safetensors",
    "traj_diffusion/model/checkpoints/*.json": "traj_diffusion/model/checkpoints/*.json",
    "traj_diffusion/viz/*.html": "traj_diffusion/viz/*.html",
    "traj_diffusion/viz/*.css": "traj_diffusion/viz/*.css",
    "traj_diffusion/viz/*.js": "traj_diffusion/viz/*.js",
}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and a wheel that was built from it. The checkout itself is left as it is."""
    pytest.importorskip("build", reason="no `build`")
    source = tmp_path_factory.mktemp("source") / "traj-diffusion"
    wanted = [ROOT / name for name in (*MAPPED, "traj_diffusion", "tests", "tools", "docs")]
    for folder in wanted:
        shutil.copytree(folder, source / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, source)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_setup_cfg_lists_every_package_on_disk() -> None:
    found = set()
    for folder in ("traj_diffusion", *MAPPED):
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join((MAPPED.get(parts[0], parts[0]), *parts[1:])))
    assert set(setup_cfg()["options"]["packages"].split()) == found


def test_every_module_lies_in_a_package() -> None:
    for folder in ("traj_diffusion", *MAPPED):
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module


def test_the_version_has_one_source() -> None:
    assert importlib.metadata.version("traj-diffusion") == traj_diffusion.__version__
    assert setup_cfg()["metadata"]["version"] == "attr: traj_diffusion.__version__"
    assert f'"{traj_diffusion.__version__}"' in (ROOT / "traj_diffusion" / "__init__.py").read_text(encoding="utf-8")


def test_every_requirement_is_pinned_in_constraints() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)  # no `+cpu`, no path
    assert names == sorted(set(names))
    assert "torch==2.13.0" in pins
    assert not [name for name in names if name.startswith(("nvidia", "triton", "cuda"))]
    extras = setup_cfg()["options.extras_require"]
    wanted = [setup_cfg()["options"]["install_requires"], *extras.values()]
    for line in "\n".join(wanted).split():
        name = re.split(r"[<>=]", line)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in names, f"{name} is not pinned"


@pytest.mark.parametrize("arguments", [["-P"], []], ids=["safe path", "root on the path"])
def test_from_the_repository_root_the_rooms_are_found_and_ours(arguments: list[str]) -> None:
    code = (
        "import traj_diffusion as td, traj_diffusion.datasets as ours, traj_diffusion.configs\n"
        "assert td.read_scenes is ours.read_scenes\n"
        "assert 'rollout' in dir(td) and callable(td.rollout)\n"
    )
    subprocess.run([sys.executable, *arguments, "-c", code], check=True, cwd=ROOT)


def test_the_wheel_holds_one_top_level_and_all_data(built: Path) -> None:
    with zipfile.ZipFile(wheel(built)) as archive:
        names = [Path(name) for name in archive.namelist()]
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == {"traj_diffusion"}
    for pattern, source in DATA.items():
        shipped = sorted(name.name for name in names if name.match(pattern))
        assert shipped == sorted(file.name for file in ROOT.glob(source))
        assert shipped, f"no {pattern}"
    modules = {str(name) for name in names if name.suffix == ".py"}
    for folder in ("traj_diffusion", *MAPPED):
        for module in (ROOT / folder).rglob("*.py"):
            inner = module.relative_to(ROOT).as_posix()
            assert (inner if folder == "traj_diffusion" else f"traj_diffusion/{inner}") in modules


def test_the_sdist_holds_what_a_developer_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("Makefile", "constraints.txt", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "docs/rollouts.md"):
        assert name in names


def test_twine_finds_nothing_wrong(built: Path) -> None:
    pytest.importorskip("twine", reason="no `twine`")
    command = [sys.executable, "-P", "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


class Environment:
    """A virtual environment that sees what is installed here, except packages that are installed as editable."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        windows = os.name == "nt"
        self.python = folder / ("Scripts/python.exe" if windows else "bin/python")
        self.site = Path(sysconfig.get_path("purelib", "nt" if windows else "posix_prefix", {"base": str(folder)}))
        here = [entry for entry in sys.path if Path(entry).name == "site-packages"]
        (self.site / "here.pth").write_text("\n".join(here) + "\n")  # .pth files of those folders are not read

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        pip = [sys.executable, "-P", "-m", "pip", "--python", str(self.python), "install", "-q", *arguments]
        return subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def run(self, code: str) -> None:
        done = subprocess.run([str(self.python), "-c", code], cwd=self.site, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


BOTH_ARE_THERE = (
    "import datasets, traj_diffusion as td, traj_diffusion.datasets as ours\n"
    "assert datasets is not ours and 'traj_diffusion' not in datasets.__file__, datasets.__file__\n"
    "assert 'site-packages' in td.__file__, td.__file__\n"
    "scene = next(td.read_scenes('bundled'))\n"
    "assert td.evaluate(scene, td.rollout(scene, td.ConstantVelocity(), rollouts=1))\n"
)


def test_installed_beside_another_package_called_datasets_both_are_there(built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    (environment.site / "datasets").mkdir()
    (environment.site / "datasets" / "__init__.py").write_text("load_dataset = len\n")
    done = environment.install("--no-deps", str(wheel(built)))
    assert done.returncode == 0, done.stderr
    environment.run(BOTH_ARE_THERE + "assert datasets.load_dataset is len\n")


@pytest.mark.slow
def test_installed_beside_the_datasets_of_hugging_face_both_are_there(built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    done = environment.install("datasets")
    if done.returncode:
        pytest.skip(f"Hugging Face's datasets cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    done = environment.install("--no-deps", str(wheel(built)))
    assert done.returncode == 0, done.stderr
    environment.run(BOTH_ARE_THERE + "assert datasets.Dataset.from_dict({'a': [1, 2]}).num_rows == 2\n")
