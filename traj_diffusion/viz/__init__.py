"""Pictures from scenes and rollouts: PNG files, a player in one HTML file, an index of many. Knows no model.

Names are imported when first used, so that importing the room imports neither matplotlib nor shapely.
"""

import importlib
from typing import TYPE_CHECKING, Any

# No module here is called as its function is: importing it would put the module in the function's place.
_PUBLIC = {
    "Entry": "traj_diffusion.viz.index",
    "player": "traj_diffusion.viz.page",
    "save_picture": "traj_diffusion.viz.picture",
    "write_index": "traj_diffusion.viz.index",
}

__all__ = ["Entry", "player", "save_picture", "write_index"]

if TYPE_CHECKING:
    from traj_diffusion.viz.index import Entry, write_index
    from traj_diffusion.viz.page import player
    from traj_diffusion.viz.picture import save_picture


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
