"""The index: links that work from its folder, scores that can be compared, names that stay text."""

import math
import subprocess
import sys
from pathlib import Path

from traj_diffusion.viz import Entry, write_index


def test_links_are_relative_and_scores_stand_in_columns(tmp_path: Path) -> None:
    entries = [
        Entry("a b", tmp_path / "pictures" / "a b.png", tmp_path / "a.html", {"min ADE": 1.0, "offroad": 0.25}),
        Entry("c", tmp_path / "c.png", None, {"min ADE": 3.0, "offroad": math.nan}),
    ]
    path = write_index(tmp_path, entries)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "index.html"
    assert '<a href="./a.html"><img src="./pictures/a%20b.png"' in text
    assert '<a href="./c.png">c</a>' in text
    assert '<th scope="row">mean</th><td>2</td><td>0.25</td>' in text
    assert str(tmp_path) not in text


def test_names_stay_text(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script>"
    text = write_index(tmp_path, [Entry(hostile, Path('x"><b>.png'), None, {hostile: 1.0})]).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text


def test_an_empty_index_is_a_page(tmp_path: Path) -> None:
    assert "0 scenes" in write_index(tmp_path, []).read_text(encoding="utf-8")


def test_importing_the_room_imports_no_drawing_library() -> None:
    code = (
        "import sys, traj_diffusion.viz as v; assert {'player', 'save_picture', 'write_index'} <= set(v.__all__);"
        "v.player, v.save_picture, v.write_index; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd="/")
