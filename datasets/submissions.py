"""Submissions to the Waymo Open Sim Agents Challenge: read, checked, and written in shards.

Field numbers are those of waymo_open_dataset/protos/sim_agents_submission.proto. A submission is one or more files
`name.binproto-00000-of-00150`, each a whole `SimAgentsChallengeSubmission` with its share of the scenes, in one tar.gz.
"""

import re
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from traj_diffusion.datasets.wire import SPAN, bytes_field, integer_field, packed_floats_field
from traj_diffusion.errors import BadConfig, BadFile, BadRecord, BadRollouts
from traj_diffusion.scene import AgentKind, Rollouts, Scene
from traj_diffusion.scene.archive import atomic_path

ROLLOUTS = 32
FUTURE_STEPS, ALL_STEPS = 80, 91
MAX_BYTES = 2**31 - 1
"""What one protobuf message may hold."""

SHARD_NAME = re.compile(r".*\.binproto(-\d{5}-of-\d{5})?")
_X, _Y, _Z, _HEADING, _ID, _WIDTH, _LENGTH, _HEIGHT, _TYPE, _VALID = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
_FLOATS = (_X, _Y, _Z, _HEADING, _WIDTH, _LENGTH, _HEIGHT)
_DT = 0.1


@dataclass(frozen=True)
class Declaration:
    """Who submits what: the fields of a submission beside its rollouts. Raises BadConfig where one does not fit."""

    account_name: str  # the e-mail address registered at waymo.com/open
    unique_method_name: str
    authors: tuple[str, ...]
    num_model_parameters: str  # an integer and a suffix: "200K"
    uses_lidar_data: bool
    uses_camera_data: bool
    uses_public_model_pretraining: bool
    acknowledge_complies_with_closed_loop_requirement: bool
    affiliation: str = ""
    description: str = ""
    method_link: str = ""
    public_model_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("account_name", "unique_method_name", "authors"):
            if not getattr(self, name):
                raise BadConfig(f"{name} is empty; a submission must say it")
        if not re.fullmatch(r"\d+[KMBT]?", self.num_model_parameters):
            raise BadConfig(f"num_model_parameters is {self.num_model_parameters!r}; wanted is a number such as '200K'")
        if not self.acknowledge_complies_with_closed_loop_requirement:
            raise BadConfig(
                "acknowledge_complies_with_closed_loop_requirement is False; the challenge takes no such entry"
            )

    def encode(self) -> bytes:
        """Return the fields of a `SimAgentsChallengeSubmission` that stand beside its rollouts."""
        texts: list[tuple[int, str]] = [(3, self.account_name), (4, self.unique_method_name)]
        texts += [(5, author) for author in self.authors]
        texts += [(6, self.affiliation), (7, self.description), (8, self.method_link)]
        out = integer_field(2, 1) + b"".join(bytes_field(number, text.encode()) for number, text in texts if text)
        for number, flag in ((9, self.uses_lidar_data), (10, self.uses_camera_data)):
            out += integer_field(number, flag)
        out += integer_field(11, self.uses_public_model_pretraining)
        out += bytes_field(12, self.num_model_parameters.encode())
        out += b"".join(bytes_field(13, name.encode()) for name in self.public_model_names)
        return out + integer_field(14, self.acknowledge_complies_with_closed_loop_requirement)


def check_rollouts(rollouts: Rollouts, scene: Scene | None = None) -> None:
    """Raise BadRollouts unless the challenge would take these rollouts of one scene.

    The rules are the official validator's (an id, 32 runs, all steps, with `scene` exactly its simulated agents), and
    three that it leaves out: no agent twice, finite values also in float32, everyone there at all steps.
    """
    where = f"scene {rollouts.scene_id or '(no id)'}"

    def require(condition: bool, otherwise: str) -> None:
        if not condition:
            raise BadRollouts(f"{where}: {otherwise}")

    rollouts.check(where)
    require(bool(rollouts.scene_id), "the scenario id is empty")
    require(rollouts.runs == ROLLOUTS, f"{rollouts.runs} runs; the challenge wants {ROLLOUTS}")
    steps = rollouts.valid.shape[2]
    wanted = {FUTURE_STEPS: 11, ALL_STEPS: 0}
    require(
        wanted.get(steps) == rollouts.first_step,
        f"{steps} steps from step {rollouts.first_step} on; wanted are 80 from 11 on (scenario generation: 91 from 0)",
    )
    require(steps == FUTURE_STEPS or rollouts.size is not None, "scenario generation wants the sizes of the agents")
    require(bool(rollouts.valid.all()), "an agent is not there at some step; hold the last state of one that leaves")
    with np.errstate(over="ignore"):
        require(bool(np.isfinite(rollouts.position.astype(np.float32)).all()), "a position does not fit float32")
    require(bool((np.abs(rollouts.agent_id) < 2**31).all()), "an agent id does not fit 32 bits")
    if scene is not None:
        expected = scene.agents.id[scene.sim_agents]
        missing = np.setdiff1d(expected, rollouts.agent_id).tolist()
        foreign = np.setdiff1d(rollouts.agent_id, expected).tolist()
        require(rollouts.scene_id == scene.id, f"these are not rollouts of scene {scene.id}")
        require(not missing and not foreign, f"agents {missing} are missing and {foreign} are foreign")


def encode_rollouts(rollouts: Rollouts) -> bytes:
    """Return the rollouts of one scene as a `ScenarioRollouts` message. Raises BadRollouts."""
    check_rollouts(rollouts)
    steps = rollouts.valid.shape[2]
    position = rollouts.position.astype(np.float32)
    out = bytearray(bytes_field(1, rollouts.scene_id.encode()))
    for run in range(rollouts.runs):
        joint = bytearray()
        for row, agent in enumerate(rollouts.agent_id):
            fields = [
                packed_floats_field(number, position[run, row, :, axis]) for axis, number in enumerate((_X, _Y, _Z))
            ]
            fields += [packed_floats_field(_HEADING, rollouts.heading[run, row]), integer_field(_ID, int(agent))]
            if rollouts.size is not None and steps == ALL_STEPS:
                length, width, height = (np.full(steps, value, np.float32) for value in rollouts.size[run, row])
                fields += [packed_floats_field(_WIDTH, width), packed_floats_field(_LENGTH, length)]
                fields += [packed_floats_field(_HEIGHT, height), integer_field(_TYPE, int(rollouts.kind[row]))]
                fields.append(bytes_field(_VALID, b"\x01" * steps))
            joint += bytes_field(1, b"".join(fields))
        out += bytes_field(2, bytes(joint))
    return bytes(out)


def write_submission(
    path: Path, rollouts: Iterable[Rollouts], declaration: Declaration, shards: int = 150, name: str = "submission"
) -> Path:
    """Write a submission as tar.gz, whole or not at all. Scenes go to the shards in turn, one in memory at a time.

    Raises BadRollouts where a scene does not fit or comes twice, or a shard would be too large.
    """
    if not 1 <= shards <= 99_999 or "/" in name:
        raise ValueError(f"shards {shards} must lie in 1..99999, and the name {name!r} be a file's")
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        files = [Path(folder) / f"{name}.binproto-{shard:05d}-of-{shards:05d}" for shard in range(shards)]
        for file in files:
            file.write_bytes(declaration.encode())
        for number, item in enumerate(rollouts):
            if item.scene_id in seen:
                raise BadRollouts(f"scene {item.scene_id}: comes more than once")
            seen.add(item.scene_id)
            file = files[number % shards]
            with file.open("ab") as stream:
                stream.write(bytes_field(1, encode_rollouts(item)))
            if file.stat().st_size > MAX_BYTES:
                raise BadRollouts(
                    f"shard {file.name} grows beyond {MAX_BYTES:,} bytes; ask for more than {shards} shards"
                )
        with atomic_path(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
            for file in files:
                archive.add(file, file.name)
    return path


def read_submission(path: str | Path) -> Iterator[Rollouts]:
    """Yield the rollouts of a submission: one binproto file, gzipped or not, or a tar.gz of shards.

    Agent kinds are OTHER where the file does not say them, as sim agents' files do not. Raises BadFile and BadRecord.
    """
    path = Path(path)
    for where, data in _shards(path):
        for number, (field, value) in enumerate(_fields(memoryview(data), where)):
            if field == 1:
                yield decode_rollouts(_span(value, where), f"{where}, field {number}")


def decode_rollouts(message: bytes | memoryview, where: str = "rollouts") -> Rollouts:
    """Return the rollouts of one `ScenarioRollouts` message. `where` names it in the BadRecord of a broken one."""
    scene_id = ""
    runs: list[dict[int, _Trajectory]] = []
    for field, value in _fields(memoryview(message), where):
        if field == 1:
            scene_id = bytes(_span(value, where)).decode("utf-8", "replace")
        elif field == 2:
            runs.append(_joint_scene(_span(value, where), f"{where}, run {len(runs)}"))
    if not runs or not runs[0]:
        raise BadRecord(f"{where}: no simulated trajectory")
    ids = list(runs[0])
    for run, agents in enumerate(runs):
        if set(agents) != set(ids):
            raise BadRecord(f"{where}, run {run}: its agents are not those of run 0")
    steps = len(runs[0][ids[0]].values[_X])
    if steps not in (FUTURE_STEPS, ALL_STEPS):
        raise BadRecord(f"{where}: trajectories of {steps} steps; wanted are {FUTURE_STEPS} or {ALL_STEPS}")
    sized = all(len(runs[0][agent].values[_WIDTH]) > 0 for agent in ids)
    for run, agents in enumerate(runs):
        for agent, trajectory in agents.items():
            for number, values in trajectory.values.items():
                if len(values) != steps and (sized or number not in (_WIDTH, _LENGTH, _HEIGHT)):
                    raise BadRecord(
                        f"{where}, run {run}, agent {agent}: field {number} has {len(values)} of {steps} values"
                    )

    def gathered(number: int) -> Float32[np.ndarray, "R A F"]:
        return np.array([[agents[agent].values[number] for agent in ids] for agents in runs], np.float32)

    heading = gathered(_HEADING)
    return Rollouts(
        scene_id=scene_id,
        first_step=11 if steps == FUTURE_STEPS else 0,
        dt=_DT,
        agent_id=np.array(ids, np.int64),
        kind=np.array([runs[0][agent].kind for agent in ids], np.uint8),
        position=np.stack([gathered(number) for number in (_X, _Y, _Z)], -1).astype(np.float64),
        heading=heading,
        valid=np.ones(heading.shape, bool),
        size=_constant_size(gathered, where) if sized else None,
    )


@dataclass(frozen=True)
class _Trajectory:
    values: dict[int, np.ndarray]
    kind: int


def _constant_size(gathered: Callable[[int], np.ndarray], where: str) -> Float32[np.ndarray, "R A 3"]:
    size = np.stack([gathered(number) for number in (_LENGTH, _WIDTH, _HEIGHT)], -1)
    if not (size == size[:, :, :1]).all():
        raise BadRecord(f"{where}: a box changes its size over time, which rollouts cannot hold")
    return np.ascontiguousarray(size[:, :, 0])


def _joint_scene(message: memoryview, where: str) -> dict[int, _Trajectory]:
    agents: dict[int, _Trajectory] = {}
    for field, value in _fields(message, where):
        if field != 1:
            continue
        parts: dict[int, list[np.ndarray]] = {number: [] for number in _FLOATS}
        agent, kind = None, int(AgentKind.OTHER)
        for number, part in _fields(_span(value, where), where):
            if number in parts:
                # Packed, or one by one: protobuf's readers take both.
                packed = struct.pack("<I", part) if isinstance(part, int) else part
                if len(packed) % 4:
                    raise BadRecord(f"{where}: field {number} is no list of floats")
                parts[number].append(np.frombuffer(packed, "<f4"))
            elif number == _ID and isinstance(part, int):
                agent = part - 2**64 if part >= 2**63 else part
            elif number == _TYPE and isinstance(part, int):
                kind = part if part in set(AgentKind) else int(AgentKind.OTHER)
        if agent is None:
            raise BadRecord(f"{where}: a trajectory has no object id")
        if agent in agents:
            raise BadRecord(f"{where}: agent {agent} comes twice")
        nothing = np.zeros(0, np.float32)
        agents[agent] = _Trajectory({n: np.concatenate([nothing, *found]) for n, found in parts.items()}, kind)
    return agents


def _shards(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each binproto file, unzipped, its size bounded by what a message may hold."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped and tarfile.is_tarfile(path):
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    if not SHARD_NAME.fullmatch(member.name):
                        raise BadFile(f"{path}: holds {member.name!r}; shards are called name.binproto-00000-of-00150")
                    stream = archive.extractfile(member)
                    if member.size > MAX_BYTES or stream is None:
                        raise BadFile(
                            f"{path}: {member.name} claims {member.size:,} bytes; a message holds {MAX_BYTES:,}"
                        )
                    yield f"{path}, {member.name}", stream.read()
            return
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        if zipped:
            inflater = zlib.decompressobj(wbits=31)
            data = inflater.decompress(data, MAX_BYTES)
            if not inflater.eof:
                raise BadFile(f"{path}: the gzip stream is cut off, or holds more than {MAX_BYTES:,} bytes")
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zlib.error, EOFError, tarfile.TarError) as error:
        raise BadFile(f"{path}: the archive is damaged ({error})") from error
    if not data:
        raise BadFile(f"{path}: empty, or larger than the {MAX_BYTES:,} bytes that a message may hold")
    yield str(path), data


def _span(value: int | memoryview, where: str) -> memoryview:
    if isinstance(value, int):
        raise BadRecord(f"{where}: a number stands where a message or text belongs")
    return value


def _fields(data: memoryview, where: str) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; values of fixed size come as their bits. Raises BadRecord."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at, where)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise BadRecord(f"{where}: a field has the number 0")
        if wire == 0:
            value, at = _varint(data, at, where)
            yield number, value
            continue
        if wire == SPAN:
            size, at = _varint(data, at, where)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise BadRecord(f"{where}: field {number} has the unknown wire type {wire}")
        if size > end - at:
            raise BadRecord(f"{where}: field {number} claims {size} bytes where {end - at} are left")
        span = data[at : at + size]
        at += size
        yield number, span if wire == SPAN else int.from_bytes(span, "little")


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadRecord(f"{where}: ends inside a value")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise BadRecord(f"{where}: a varint is longer than 10 bytes")
