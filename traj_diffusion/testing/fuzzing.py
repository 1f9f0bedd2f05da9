"""Readers against broken files: every one must end in valid scenes or in one typed error."""

import gzip
import io
import json
import math
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.sources import read_file
from traj_diffusion.datasets.tfrecord import write_records
from traj_diffusion.datasets.womd_writer import scenario_bytes
from traj_diffusion.errors import TrajDiffusionError
from traj_diffusion.scene import check_scene, save_scene
from traj_diffusion.testing.foreign import (
    av2_columns,
    av2_map,
    av2_sensor_tables,
    example_bytes,
    example_features,
    scenarionet_document,
    write_nuplan,
    write_smarts,
)
from traj_diffusion.testing.fuzzing_xml import XML_READERS
from traj_diffusion.testing.mutations import mutate, mutate_document
from traj_diffusion.testing.scenes import crossing, straight_road


@cache
def _good_records() -> tuple[bytes, bytes]:
    short = straight_road(steps=15)
    few = crossing().history_only()
    return scenario_bytes(few), scenario_bytes(replace(short, map=few.map))


def _womd(rng: np.random.Generator, path: Path) -> None:
    """Mutate the message and frame it anew, so that the change reaches the decoder; now and then the frame itself."""
    record = _good_records()[int(rng.integers(0, 2))]
    write_records(path, [mutate(record, rng)])
    if rng.random() < 0.1:
        path.write_bytes(mutate(path.read_bytes(), rng))
    if rng.random() < 0.1:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))


def _gpudrive(rng: np.random.Generator, path: Path) -> None:
    document = _DOCUMENT
    for _ in range(int(rng.integers(0, 3))):
        document = mutate_document(document, rng)
    content = json.dumps(document).encode()
    if document is _DOCUMENT:
        content = mutate(content, rng, text=True)
    path.write_bytes(gzip.compress(content, 1) if rng.random() < 0.1 else content)


@cache
def _good_pickle() -> dict[str, Any]:
    return scenarionet_document(crossing())


def _scenarionet(rng: np.random.Generator, path: Path) -> None:
    """Mutate what is pickled, or the pickle's bytes."""
    document = _good_pickle()
    for _ in range(int(rng.integers(0, 3))):
        document = mutate_document(document, rng)
    content = pickle.dumps(document, int(rng.integers(2, 6)))
    if rng.random() < 0.5:
        content = mutate(content, rng)
    path.write_bytes(gzip.compress(content, 1) if rng.random() < 0.1 else content)


@cache
def _good_example() -> dict[str, Any]:
    return example_features(straight_road(steps=15))


def _womd_example(rng: np.random.Generator, path: Path) -> None:
    """Mutate the features or the message and frame it anew, so that the change reaches the decoder."""
    features = dict(_good_example())
    if rng.random() < 0.5:
        name = list(features)[int(rng.integers(0, len(features)))]
        values = features.pop(name)
        if rng.random() < 0.7 and not isinstance(values, list):
            odd = values.copy()
            odd[int(rng.integers(0, len(odd)))] = rng.choice([-1, 0, 1, 2**31, 2**62, 7])
            features[name] = odd[: int(rng.integers(0, len(odd) + 1))] if rng.random() < 0.3 else odd
    record = example_bytes(features)
    write_records(path, [mutate(record, rng) if rng.random() < 0.5 else record])
    if rng.random() < 0.1:
        path.write_bytes(mutate(path.read_bytes(), rng))


@cache
def _good_av2() -> tuple[dict[str, list[Any]], dict[str, Any]]:
    return av2_columns(straight_road(steps=15)), av2_map()


def _av2(rng: np.random.Generator, path: Path) -> None:
    """Mutate a column, the map, or the bytes of the parquet file."""
    import pyarrow
    import pyarrow.parquet

    columns, document = _good_av2()
    if rng.random() < 0.5:
        document = mutate_document(document, rng)
    text = json.dumps(document).encode()
    map_path = path.with_name("log_map_archive_made.json")
    map_path.write_bytes(mutate(text, rng, text=True) if rng.random() < 0.1 else text)
    name = list(columns)[int(rng.integers(0, len(columns)))]
    if rng.random() < 0.3:
        odd = _WRONG[int(rng.integers(0, len(_WRONG)))]
        columns = columns | {name: (odd * len(columns[name]))[: len(columns[name])]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    if rng.random() < 0.4:
        path.write_bytes(mutate(path.read_bytes(), rng))


@cache
def _good_av2_sensor() -> tuple[dict[str, Any], dict[str, Any]]:
    return av2_sensor_tables(straight_road(steps=15))


def _av2_sensor(rng: np.random.Generator, path: Path) -> None:
    """Change a column of the cuboids or of the poses, or the map, or the bytes of one of the files."""
    import pyarrow
    import pyarrow.feather

    poses_path = path.with_name("city_SE3_egovehicle.feather")
    tables = dict(zip((path, poses_path), _good_av2_sensor(), strict=True))
    chosen = path if rng.random() < 0.7 else poses_path
    if rng.random() < 0.4:
        columns = tables[chosen]
        name = list(columns)[int(rng.integers(0, len(columns)))]
        odd = _WRONG[int(rng.integers(0, len(_WRONG)))]
        tables[chosen] = columns | {name: (odd * len(columns[name]))[: len(columns[name])]}
    for file, columns in tables.items():
        compression = ("uncompressed", "lz4", "zstd")[int(rng.integers(0, 3))]
        pyarrow.feather.write_feather(pyarrow.table(columns), file, compression=compression)
    if rng.random() < 0.5:
        chosen.write_bytes(mutate(chosen.read_bytes(), rng))
    document = mutate_document(av2_map(), rng) if rng.random() < 0.3 else av2_map()
    (path.parent / "map").mkdir(exist_ok=True)
    (path.parent / "map" / "log_map_archive_x.json").write_text(json.dumps(document))


# Part of the repository, not of the package.
_PY123D_LOG = Path(__file__).resolve().parents[2] / "tests" / "data" / "py123d" / "straight"
_PY123D = ("sync", "ego_state_se3", "box_detections_se3", "traffic_light_detections", "map")


@cache
def _good_py123d() -> dict[str, bytes]:
    """Return the files of the log that py123d itself wrote."""
    return {name: (_PY123D_LOG / f"{name}.arrow").read_bytes() for name in _PY123D}


def _py123d(rng: np.random.Generator, path: Path) -> None:
    """Change rows or columns of one of a log's tables, or the bytes of one of its files."""
    import pyarrow
    import pyarrow.ipc

    names = list(_PY123D)
    chosen = names[int(rng.integers(0, len(names)))]
    for name, content in _good_py123d().items():
        file = path if name == "sync" else path.with_name(f"{name}.arrow")
        if name == chosen and rng.random() < 0.6:
            table = pyarrow.ipc.open_file(pyarrow.BufferReader(content)).read_all()
            column = int(rng.integers(0, table.num_columns))
            field, values = table.schema.field(column), table.column(column).to_pylist()
            values = mutate_document(values, rng) if rng.random() < 0.8 else values[::-1]
            values = [*values, *[None] * table.num_rows][: table.num_rows]
            if field.type == pyarrow.binary():
                values = [mutate(v, rng) if isinstance(v, bytes) and rng.random() < 0.1 else v for v in values]
            try:
                changed = pyarrow.array(values, field.type)
            except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
                changed = pyarrow.nulls(table.num_rows, field.type)
            if not isinstance(changed, pyarrow.ExtensionArray):
                table = table.set_column(column, field.name if rng.random() < 0.9 else "x", changed)
            with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            file.write_bytes(mutate(content, rng) if name == chosen else content)


_WRONG: list[list[Any]] = [
    [None, 1, -1],
    [1e300, math.nan, 1.0],
    ["EGO_VEHICLE", "", None],
    [True, False, None],
    [2**62, 7, 0],
    [0.0],
]
_ODD = (None, "x", b"\x00\xff", -1, 2**62, 1e300, 0, "a" * 10_000)
_VIEWS = (  # in place of a table: one that never ends, and one that is too large
    "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT a FROM n",
    "SELECT zeroblob(1000000000)",
)


@cache
def _good_database(reader: str, folder: Path) -> bytes:
    write = {"nuplan": write_nuplan, "smarts": write_smarts}[reader]
    return write(folder / f"good.{reader}", straight_road(steps=15)).read_bytes()


def _database(reader: str, rng: np.random.Generator, path: Path) -> None:
    """Change one value, drop a table or column, or mutate the file's bytes."""
    path.write_bytes(_good_database(reader, path.parent))
    kind = rng.random()
    if kind < 0.5:
        path.write_bytes(mutate(path.read_bytes(), rng))
        return
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = tables[int(rng.integers(0, len(tables)))]
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    column = columns[int(rng.integers(0, len(columns)))]
    if kind < 0.85:
        some = f"WHERE rowid % {int(rng.integers(1, 20))} = 0"
        odd = _ODD[int(rng.integers(0, len(_ODD)))]
        database.execute(f"UPDATE {table} SET {column} = ? {some}", (odd,))
    elif kind < 0.9:
        database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    elif kind < 0.95:
        database.execute(f"DELETE FROM {table}")
    else:
        database.execute(f"DROP TABLE {table}")
        database.execute(f"CREATE VIEW {table} AS {_VIEWS[int(rng.integers(0, 2))]}")
    database.commit()
    database.close()
    if rng.random() < 0.1:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))


@cache
def _good_archive(folder: Path) -> bytes:
    return save_scene(crossing(), folder / "good.scene.npz").read_bytes()


def _archive(rng: np.random.Generator, path: Path) -> None:
    """Mutate one entry of the archive and pack it anew, or the archive's own bytes."""
    path.write_bytes(_good_archive(path.parent))
    if rng.random() < 0.2:
        path.write_bytes(mutate(path.read_bytes(), rng))
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        names = old.namelist()
        chosen = names[int(rng.integers(0, len(names)))]
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, rng) if name == chosen else content)
    path.write_bytes(buffer.getvalue())


_DOCUMENT: Any = {
    "name": "a.json",
    "scenario_id": "a",
    "objects": [
        {
            "position": [{"x": 1.5 * step, "y": 2.0, "z": 0.5} for step in range(12)],
            "velocity": [{"x": 1.5, "y": 0.0}] * 12,
            "heading": [0.01 * step for step in range(12)],
            "valid": [True] * 12,
            "length": 4.0,
            "width": 2.0,
            "height": 1.5,
            "type": "vehicle",
            "id": number,
        }
        for number in range(2)
    ],
    "roads": [{"geometry": [{"x": 0, "y": 0}, {"x": 5, "y": 1}], "type": "lane", "map_element_id": 2, "id": 1}],
    "tl_states": {},
    "metadata": {"sdc_track_index": 0, "tracks_to_predict": [{"track_index": 1, "difficulty": 0}]},
}
READERS: dict[str, Callable[[np.random.Generator, Path], None]] = {
    "womd": _womd,
    "gpudrive": _gpudrive,
    "archive": _archive,
    "womd_example": _womd_example,
    "av2": _av2,
    "av2_sensor": _av2_sensor,
    "nuplan": partial(_database, "nuplan"),
    "smarts": partial(_database, "smarts"),
    "scenarionet": _scenarionet,
    **XML_READERS,
}
if _PY123D_LOG.is_dir():
    READERS["py123d"] = _py123d
NEEDS = {
    "av2": "pyarrow",
    "av2_sensor": "pyarrow",
    "py123d": "pyarrow",
}  # the package that writes the files of a reader


def fuzz_once(reader: str, seed: int, number: int, folder: Path) -> str:
    """Write one broken file into the folder, read it, and return how it ended: "scene" or the error's class.

    Any exception other than a typed, one-line error that names the file passes through: it is a bug.
    """
    path = folder / f"{reader}.fuzzed"
    READERS[reader](np.random.default_rng([seed, number]), path)
    try:
        for scene in read_file(path):
            check_scene(scene)
    except TrajDiffusionError as error:
        if path.name not in str(error):
            raise AssertionError(f"{type(error).__name__} does not name the file: {error}") from error
        return type(error).__name__
    return "scene"
