"""Blocks of pages: what stands between the marks is exchanged, all else stays."""

import pytest

from traj_diffusion.evaluation.pages import with_block

START, END = "<!-- table -->\n", "<!-- end of table -->"


def test_a_block_is_exchanged_and_nothing_else() -> None:
    page = f"before\n{START}old\n{END}\nafter\n"
    made = with_block(page, START, END, "new\n")
    assert made == f"before\n{START}new\n{END}\nafter\n"
    assert with_block(made, START, END, "new\n") == made


@pytest.mark.parametrize("page", ["", START, END, END + START])
def test_a_page_without_the_marks_is_left_alone(page: str) -> None:
    with pytest.raises(SystemExit, match="table"):
        with_block(page, START, END, "new\n")
