"""A vehicle's way as rows of the map's lanes: what it drove, and then what it had planned."""

from collections import deque

import numpy as np

from traj_diffusion.datasets.synthesis.network import Connection, Network
from traj_diffusion.datasets.synthesis.roadmap import RoadMap

AHEAD = 12  # lanes of the plan beyond what was driven


def planned_rows(
    row: np.ndarray, passed: np.ndarray, edges: list[str] | None, network: Network, roads: RoadMap
) -> list[int]:
    """Return the lanes driven in a window and those that the route goes on with; neighbours in the list are linked.

    Links are successors, or a lane beside where the vehicle changed lanes.
    """
    on_map = row[row >= 0]
    if edges is None or not len(on_map):
        return []
    driven = on_map[np.concatenate([[True], on_map[1:] != on_map[:-1]])].tolist()
    rows = [driven[0]]
    for target in driven[1:]:
        # Beside a lane of another length a change of lanes can seem to lead backwards; such a row is left out.
        rows += _bridge(rows[-1], target, roads) or []
    at = int(passed[np.flatnonzero(row >= 0)[-1]])
    return rows + _onward(rows[-1], edges[at + 1 :], network, roads)


def _bridge(start: int, target: int, roads: RoadMap) -> list[int] | None:
    """Return the rows after `start` up to `target`: usually only that; None if it is out of reach."""
    links = roads.features.links
    queue: deque[tuple[int, tuple[int, ...]]] = deque([(start, ())])
    seen = {start}
    while queue:
        row, way = queue.popleft()
        for beside in (links.successors, links.left, links.right):
            for step in beside[row].tolist():
                if step == target:
                    return [*way, step]
                if step not in seen and len(way) < 4:
                    seen.add(step)
                    queue.append((step, (*way, step)))
    return None


def _onward(row: int, edges: list[str], network: Network, roads: RoadMap) -> list[int]:
    lane = roads.lane_of[row]
    rows = list(range(row + 1, roads.rows[lane].stop))
    while network.lanes[lane].internal:
        following = [c for c in network.after.get(lane, []) if (c.via or c.target) in roads.rows]
        if not following:
            return rows
        lane = following[0].via or following[0].target
        rows += list(roads.rows[lane])
    for edge in edges:
        if len(rows) > AHEAD:
            break
        step = _turn(lane, edge, network)
        if step is None:
            break
        aside = list(roads.rows[step.source])
        if step.source != lane:  # change lanes where one has to, at the end
            change = _bridge(rows[-1] if rows else row, aside[-1], roads)
            if change is None:
                break
            rows += change
        via = step.via
        while via is not None and via in roads.rows:
            rows += list(roads.rows[via])
            via = next((c.via for c in network.after.get(via, [])), None)
        rows += list(roads.rows[step.target])
        lane = step.target
    return rows


def _turn(lane: str, edge: str, network: Network) -> Connection | None:
    """Return the connection into an edge from this lane, or from the nearest one beside it."""
    here = network.lanes[lane]
    found = [
        connection
        for name in network.edges[here.edge]
        for connection in network.after.get(name, [])
        if network.lanes[connection.target].edge == edge and network.lanes[connection.target].cars
    ]
    return min(found, key=lambda c: abs(network.lanes[c.source].index - here.index), default=None)
