"""The verb: exit codes, JSON, the page, bad input, and what it reads beside a checkpoint."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from traj_diffusion.cli import main
from traj_diffusion.datasets.cache import write_cache
from traj_diffusion.diffusion import make_schedule
from traj_diffusion.doctor import NAMES, examine, load_data, plain_subject, subject_of_checkpoint
from traj_diffusion.doctor.page import write_page
from traj_diffusion.model import ModelConfig, Provenance, TrafficDiffusion, save_checkpoint
from traj_diffusion.testing.scenes import crossing, straight_road
from traj_diffusion.training import TrainConfig
from traj_diffusion.training.state import TrainState

SMALL = ModelConfig(width=16, n_heads=2, encoder_layers=1, denoiser_layers=1, near_map=4, near_lights=2, near_agents=2)
QUICK = ("checkpoint.ema", "model.one_step", "samples.determinism")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


def only(*names: str) -> list[str]:
    return [part for name in names for part in ("--only", name)]


def a_model(seed: int = 0) -> TrafficDiffusion:
    torch.manual_seed(seed)
    model = TrafficDiffusion(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def saved(path: Path, model: TrafficDiffusion, steps: int = 100) -> Path:
    return save_checkpoint(path, model, Provenance(path.stem, "nothing", 0, steps, 0, 0.0, {}))


def test_without_a_checkpoint_it_passes_and_writes_json_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "doctor", "--json", str(tmp_path / "f.json"), "--html", str(tmp_path / "f.html"))
    assert (code, err) == (0, "")
    assert len(re.findall("^ok", out, re.MULTILINE)) == 8
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["content"] == "traj-diffusion doctor"
    assert (found["schema_version"], found["failed"]) == (1, False)
    assert [row["check"] for row in found["checks"]] == list(NAMES[:8])
    assert set(found["checks"][1]) == {
        *("check", "verdict", "finding", "remedy", "figure", "warn", "fail", "series"),
    }
    assert {row["verdict"] for row in found["checks"]} == {"ok"}


def test_a_bad_schedule_exits_with_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--schedule", "linear_beta", "n=100", "beta_end=0.02")
    assert code == 1
    assert re.search(r"^fail +schedule.terminal_snr .*0\.364", out, re.MULTILINE)
    assert "zero_terminal=true" in out


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "iframe")


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    subject = plain_subject(make_schedule("linear_beta", n=50), name="<b>a & b</b>")
    write_page(tmp_path / "page.html", examine(subject, NAMES[:8]), subject)
    text = (tmp_path / "page.html").read_text()
    links = Links()
    links.feed(text)
    pictures = [link for link in links.found if not link.startswith("#")]
    assert len(pictures) == 2  # the noised future, and alpha and sigma
    assert all(link.startswith("data:image/png;base64,") for link in pictures)
    assert "<b>a" not in text
    assert "url(" not in text


def test_a_checkpoint_is_examined_on_the_bundled_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "m.safetensors", a_model())
    code, out, _ = run(capsys, "doctor", str(path), *only(*QUICK), "--steps", "2", "--html", str(tmp_path / "m.html"))
    assert code == 1  # random weights: model.one_step fails
    assert re.search(r"^ok +samples.determinism", out, re.MULTILINE)
    assert re.search(r"^fail +model.one_step", out, re.MULTILINE)
    assert (tmp_path / "m.html").stat().st_size > 10_000


def test_a_fresh_checkpoint_is_called_untrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "m.safetensors", TrafficDiffusion(SMALL))
    code, out, _ = run(capsys, "doctor", str(path), *only("checkpoint.ema"))
    assert code == 1
    assert "never trained" in out


@pytest.mark.parametrize(("which", "verdict"), [("average", "ok"), ("model", "fail")])
def test_the_average_beside_a_checkpoint_is_compared(tmp_path: Path, which: str, verdict: str) -> None:
    model, average = a_model(0), a_model(1)
    state = TrainState(model, average, torch.optim.AdamW(model.parameters()))
    state.save(tmp_path, TrainConfig(model=SMALL))
    path = saved(tmp_path / "m.safetensors", getattr(state, which))
    report = examine(subject_of_checkpoint(path, "bundled"), ["checkpoint.ema"])
    assert report.findings[0].verdict == verdict


def test_a_state_of_other_sizes_or_of_nothing_is_not_compared(tmp_path: Path) -> None:
    save_file({"average.x": torch.ones(2)}, tmp_path / "state.safetensors")
    path = saved(tmp_path / "m.safetensors", a_model())
    assert subject_of_checkpoint(path, "bundled").average is None
    (tmp_path / "state.safetensors").write_bytes(b"not one")
    assert subject_of_checkpoint(path, "bundled").average is None


def test_earlier_checkpoints_of_the_same_sizes_are_found_in_order(tmp_path: Path) -> None:
    model = a_model()
    for steps in (30, 10, 20, 200):
        saved(tmp_path / f"s{steps}.safetensors", model, steps)
    saved(tmp_path / "other.safetensors", TrafficDiffusion(replace(SMALL, width=8)), 5)
    save_file({"x": torch.ones(1)}, tmp_path / "foreign.safetensors")
    path = saved(tmp_path / "m.safetensors", deepcopy(model), 100)
    assert [subject.name for subject in subject_of_checkpoint(path, "bundled").earlier] == ["s10", "s20", "s30"]


def test_data_may_be_a_cache_and_then_closed_loops_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cache(tmp_path / "cache", [straight_road(), crossing()])
    samples, scenes = load_data(tmp_path / "cache")
    packed, _ = load_data("bundled", 1)
    assert scenes == ()
    assert samples.keys() == packed.keys()
    assert len(samples["valid"]) == 2
    path = saved(tmp_path / "m.safetensors", a_model())
    code, out, _ = run(
        capsys,
        "doctor",
        str(path),
        "--data",
        str(tmp_path / "cache"),
        *only("closed_loop.replan", "conditioning.route"),
    )
    assert code == 0
    assert "closed loops need scenes" in out
    assert "no moving agent of the data has a route" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "model.timestap"], "did you mean 'model.timestep'"),
        (["nowhere.safetensors"], "nowhere.safetensors"),
        (["--schedule", "cosin"], "did you mean 'cosine'"),
        (["--schedule", "linear_beta", "m=3"], "linear_beta"),
        (["--schedule", "linear_beta", "n=1"], "whole number from 2"),
        (["n=100"], "--schedule"),
        (["a", "b"], "one checkpoint"),
        (["a", "--schedule", "cosine"], "either"),
        (["--seconds", "0"], "seconds"),
        (["--steps", "0"], "steps"),
        (["--seconds", "nan"], "above 0"),
        (["--data", "bundled/x"], "name one"),
        (["--steps", "4"], "name one"),
        (["--schedule", ""], "Known: cosine"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "doctor", *arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_a_foreign_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "foreign.safetensors")
    code, _, err = run(capsys, "doctor", str(tmp_path / "foreign.safetensors"))
    assert code == 2
    assert "not written by traj-diffusion" in err
    np.save(tmp_path / "x.npy", np.zeros(3))
    code, _, err = run(capsys, "doctor", str(tmp_path / "x.npy"))
    assert code == 2
    assert "not a safetensors checkpoint" in err


def test_missing_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "m.safetensors", a_model())
    code, _, err = run(capsys, "doctor", str(path), "--data", str(tmp_path / "nothing"))
    assert code == 2
    assert "no such file or folder" in err
