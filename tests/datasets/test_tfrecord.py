"""TFRecord framing: known checksums, and one clear error for each way in which a file can be broken."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import tfrecord
from traj_diffusion.datasets.tfrecord import MAX_RECORD, masked_crc32c, read_records, write_records
from traj_diffusion.errors import BadFile, BadRecord

RECORDS = [b"first", b"", b"x" * 100_000]


def unmasked(data: bytes) -> int:
    value = (masked_crc32c(data) - 0xA282EAD8) & 0xFFFFFFFF
    return (value << 15 | value >> 17) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    # RFC 3720, B.4, and the check value of the CRC catalogue.
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_crc32c_has_the_published_values(data: bytes, crc: int) -> None:
    assert unmasked(data) == crc


def test_crc32c_equals_the_bitwise_definition_at_every_length(rng: np.random.Generator) -> None:
    data = rng.integers(0, 256, 70, np.uint8).tobytes()
    for length in range(70):
        crc = 0xFFFFFFFF
        for byte in data[:length]:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        assert unmasked(data[:length]) == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("zipped", [False, True])
def test_records_survive_their_file_plain_or_gzip_whatever_its_name(tmp_path: Path, zipped: bool) -> None:
    path = write_records(tmp_path / "a", RECORDS)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_records(path)) == RECORDS


def frame(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def claim(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", masked_crc32c(head))


GOOD = frame(b"good")
BROKEN: dict[str, tuple[bytes, type[BadFile], str]] = {
    "cut in the data": (
        GOOD + frame(b"x" * 99)[:-50],
        BadRecord,
        "record 1: the file ends inside the record, 53 of 99",
    ),
    "cut in the last checksum": (GOOD + GOOD[:-1], BadRecord, "record 1: the file ends inside"),
    "cut in the header": (GOOD + GOOD[:7], BadRecord, "record 1: .* header, 7 of 12 bytes"),
    "damaged data": (GOOD + GOOD.replace(b"good", b"gold"), BadRecord, "record 1: the checksum of its data is wrong"),
    "damaged length": (GOOD + b"\x05" + GOOD[1:], BadRecord, "record 1: the checksum of its length is wrong"),
    "absurd length": (GOOD + claim(2**63), BadRecord, "record 1: claims 9,223,372,036,854,775,808 bytes"),
    "large length, no data": (GOOD + claim(MAX_RECORD), BadRecord, "record 1: the file ends inside the record, 0 of"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_whole_records_come_before_the_error_about_a_broken_one(name: str, zipped: bool, tmp_path: Path) -> None:
    content, kind, message = BROKEN[name]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(gzip.compress(content) if zipped else content)
    records = read_records(path)
    assert next(records) == b"good"
    with pytest.raises(kind, match=rf"x\.tfrecord, {message}"):
        next(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (b"no record file, just text", "not a TFRecord file"),
        (b"\x1f\x8bnonsense that is no gzip at all", "gzip stream is damaged"),
        (gzip.compress(GOOD * 1000)[:-20], "gzip stream is damaged"),
    ],
)
def test_what_is_no_tfrecord_is_said_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        list(read_records(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_bad_files(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadFile, match="cannot be read"):
            list(read_records(path))


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten megabytes from ten kilobytes, under a header that claims them: more than a record may have.
    monkeypatch.setattr(tfrecord, "MAX_RECORD", 10**6)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(claim(10**7) + bytes(10**7)))
    with pytest.raises(BadRecord, match="claims 10,000,000 bytes; at most 1,000,000"):
        list(read_records(path))
