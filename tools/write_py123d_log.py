"""Let py123d write the log of tests/data/py123d: ENV/bin/python tools/write_py123d_log.py tests/data/py123d [MAP.xodr]

Run it where py123d 0.7 is installed (`pip install py123d` into an environment of its own; nothing here needs it). The
map is the OpenDRIVE text below, made for this purpose, as py123d's own parser converts it. On it a car, the ego,
drives east at 10 m/s, a van stands, a pedestrian walks north at 1.2 m/s, and a signal turns from red to green. With an
OpenDRIVE file, plain or gzip, such as the towns of CARLA that py123d carries, they do so on that map.
"""

import gzip
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from py123d.api.map.arrow.arrow_map_writer import ArrowMapWriter
from py123d.api.scene.arrow.arrow_log_writer import ArrowLogWriter
from py123d.api.scene.arrow.utils.log_writer_config import LogWriterConfig
from py123d.datatypes import (
    BoxDetectionAttributes,
    BoxDetectionSE3,
    BoxDetectionsSE3,
    BoxDetectionsSE3Metadata,
    DefaultBoxDetectionLabel,
    DynamicStateSE3,
    EgoStateSE3,
    EgoStateSE3Metadata,
    LogMetadata,
    MapMetadata,
    Timestamp,
    TrafficLightDetection,
    TrafficLightDetections,
    TrafficLightStatus,
)
from py123d.geometry import BoundingBoxSE3, PoseSE3, Vector3D
from py123d.parser.base_dataset_parser import ModalitiesSync
from py123d.parser.opendrive.opendrive_map_parser import OpenDriveMapParser

SWEEPS, SPLIT, LOG = 100, "made_test", "straight"
LANE = """<lane id="{id}" type="driving" level="false"><link>{link}</link>
<width sOffset="0" a="3.5" b="0" c="0" d="0"/>
<roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.15" laneChange="none"/>
<speed sOffset="0" max="13.9" unit="m/s"/></lane>"""
ROAD = """<road name="" length="100" id="{id}" junction="-1"><link>{link}</link>
<type s="0" type="town"><speed max="50" unit="km/h"/></type>
<planView><geometry s="0" x="{x}" y="0" hdg="0" length="100"><line/></geometry></planView>
<elevationProfile><elevation s="0" a="5" b="0" c="0" d="0"/></elevationProfile><lateralProfile/>
<lanes><laneOffset s="0" a="0" b="0" c="0" d="0"/>
<laneSection s="0"><left>{left}</left><center><lane id="0" type="none" level="false">
<roadMark sOffset="0" type="broken" weight="standard" color="yellow" width="0.15" laneChange="both"/></lane></center>
<right>{right}</right></laneSection></lanes></road>"""


def open_drive() -> str:
    """Return two roads of 100 m, one behind the other, with a lane each way, 5 m up.

    py123d leaves out roads that are not linked at both ends, so each claims the other at both; it then drops the
    links between ends that lie apart.
    """
    roads = []
    for number, other in ((1, 2), (2, 1)):
        ends = (("predecessor", "end"), ("successor", "start"))
        link = "".join(f'<{at} elementType="road" elementId="{other}" contactPoint="{point}"/>' for at, point in ends)
        left, right = (
            LANE.format(id=lane, link=f'<predecessor id="{lane}"/><successor id="{lane}"/>') for lane in (1, -1)
        )
        roads.append(ROAD.format(id=number, link=link, x=-100 if number == 1 else 0, left=left, right=right))
    bounds = 'date="" north="10" south="-10" east="100" west="-100"'
    header = f'<header revMajor="1" revMinor="4" name="made" version="1.00" {bounds}/>'
    return f"<OpenDRIVE>{header}{''.join(roads)}</OpenDRIVE>"


def given(file: Path) -> str:
    """Return the text of an OpenDRIVE file."""
    data = file.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")


def pose(x: float, y: float, z: float, heading: float) -> PoseSE3:
    """Return a pose that is turned about the vertical."""
    return PoseSE3(x=x, y=y, z=z, qw=np.cos(heading / 2), qx=0.0, qy=0.0, qz=np.sin(heading / 2))


def main() -> None:
    """Write the log, map included, into the folder that the command line names."""
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made.xodr").write_text(given(Path(sys.argv[2])) if len(sys.argv) > 2 else open_drive(), "utf-8")
        map_metadata = MapMetadata("made", "made", True, True, split=SPLIT, log_name=LOG)
        writer = ArrowMapWriter(True, folder / "maps", folder / "logs")
        writer.reset(map_metadata)
        for thing in OpenDriveMapParser(folder / "made.xodr", interpolation_step_size=5.0).iter_map_objects():
            writer.write_map_object(thing)
        writer.close()
        write_log(folder, LogMetadata("made", SPLIT, LOG, "made", map_metadata))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "logs" / SPLIT / LOG, out / LOG)


def write_log(folder: Path, metadata: LogMetadata) -> None:
    """Write what moves."""
    car = EgoStateSE3Metadata(
        "made", 2.0, 4.6, 1.5, 2.8, pose(1.4, 0, 0.4, 0), PoseSE3(x=0, y=0, z=0, qw=1, qx=0, qy=0, qz=0)
    )
    boxes = BoxDetectionsSE3Metadata(box_detection_label_class=DefaultBoxDetectionLabel)
    log = ArrowLogWriter(LogWriterConfig(force_log_conversion=True), folder / "logs", folder / "sensors", "zstd")
    log.reset(metadata)
    none = Vector3D(0.0, 0.0, 0.0)
    for sweep in range(SWEEPS):
        time, t = Timestamp.from_us(1_600_000_000_000_000 + 100_000 * sweep), 0.1 * sweep
        state = DynamicStateSE3(Vector3D(10.0, 0.0, 0.0), none, none)
        ego = EgoStateSE3.from_imu(pose(-60 + 10 * t - 1.4, -1.75, 5.35, 0.0), car, time, state)
        van = (DefaultBoxDetectionLabel.VEHICLE, "van", pose(20, 1.75, 6.0, np.pi), (5.5, 2.1, 2.0), none)
        walker = (
            DefaultBoxDetectionLabel.PERSON, "walker", pose(30, -6 + 1.2 * t, 5.9, np.pi / 2), (0.7, 0.8, 1.8),
            Vector3D(0.0, 1.2, 0.0) if sweep % 2 else None,
        )  # fmt: skip
        found = [
            BoxDetectionSE3(BoxDetectionAttributes(label, token), BoundingBoxSE3(centre, *size), velocity)
            for label, token, centre, size, velocity in (van, walker)[: 1 if sweep < 20 else 2]
        ]
        light = TrafficLightDetection(0, TrafficLightStatus.RED if sweep < 50 else TrafficLightStatus.GREEN)
        modalities = [ego, BoxDetectionsSE3(found, time, boxes), TrafficLightDetections([light], time)]
        log.write_sync(ModalitiesSync(timestamp=time, modalities=modalities))
    log.close()


if __name__ == "__main__":
    main()
