"""The service's answers, in the test's own process: findings, limits, decoders that die, who may ask."""

import asyncio
import base64
import io
import os
import random
import signal
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import Message

pytest.importorskip("gdcm")  # before pydicom, which imports it where its warning would end the process

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from cxrlab.data.cache_worker import CacheSettings
from cxrlab.deploy.loading import load_model
from cxrlab.deploy.model import Model
from cxrlab.deploy.service.app import build_app, in_time
from cxrlab.deploy.service.batching import Batcher
from cxrlab.deploy.service.decoder_process import DecodeSettings
from cxrlab.deploy.service.decoding import DecoderPool
from cxrlab.deploy.service.listening import listen
from cxrlab.deploy.service.settings import ServiceSettings, check_token
from cxrlab.deploy.service.uploads import Waiting, read_uploads, shown_name
from cxrlab.errors import ConfigError, DataError
from cxrlab.runs.reference import Spread, TrainingReference

HERE = "http://127.0.0.1:8000"
TOKEN = "a-token-of-some-length"
SMALL = ServiceSettings(max_file_mb=2, max_request_mb=4, max_waiting_mb=8, max_files=4, num_decoders=2)
WAYS = DecodeSettings((CacheSettings(32, 1, "stretch"), CacheSettings(48, 3, "pad")), max_pixels=10**6)


@pytest.fixture(scope="module")
def model(finished_run: Path) -> Model:
    return load_model(finished_run)


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    with TestClient(build_app(model, SMALL), base_url=HERE) as one:
        yield one


@pytest.fixture(scope="module")
def guarded(model: Model) -> Iterator[TestClient]:
    app = build_app(model, SMALL, token=TOKEN, is_local=False)
    with TestClient(app, base_url="http://radiology.example") as one:
        yield one


def png(seed: int = 0, side: int = 48) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8), "PNG")


def encoded(pixels: np.ndarray, form: str) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, form)
    return memory.getvalue()


def dicom(pixels: np.ndarray, **attributes: object) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Modality, data.BodyPartExamined, data.PhotometricInterpretation = "DX", "CHEST", "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 8, 8, 7
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB"
    for name, value in attributes.items():
        setattr(data, name, value)
    memory = io.BytesIO()
    data.save_as(memory, enforce_file_format=True)
    return memory.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of a few kB whose header says ``side`` pixels each way."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(50_000_000))
    return memory.getvalue()


def post(client: TestClient, *files: bytes | tuple[str, bytes], path: str = "/predict", **options: object):
    named = [one if isinstance(one, tuple) else (f"{n}.png", one) for n, one in enumerate(files)]
    return client.post(path, files=[("files", one) for one in named], **options)


# Predictions


def check_same(client: TestClient, model: Model, paths: Sequence[Path]) -> None:
    """Each answer is the row that ``cxrlab predict`` writes of the file, but for the path in its name."""
    answer = post(client, *[(path.name, path.read_bytes()) for path in paths]).json()
    assert [one["file"] for one in answer["files"]] == [path.name for path in paths]
    assert answer["model"]["version"]
    assert "research only" in answer["note"]
    rows = [row for _, row in model.predict(paths).iterrows()]
    for path, one, row in zip(paths, answer["files"], rows, strict=True):
        assert (one["status"], one["reason"]) == (row["status"], row["reason"].replace(str(path), path.name))
        for label in model.labels if one["status"] != "unreadable" else ():
            assert one["probabilities"][label] == pytest.approx(row[f"probability/{label}"], abs=1e-6)
            assert one["calibrated"][label] == pytest.approx(row[f"calibrated/{label}"], abs=1e-6)
            assert one["thresholds"][label] == row[f"threshold/{label}"]
            assert one["decisions"][label] == row[f"prediction/{label}"]


def test_each_answer_is_what_the_model_predicts_of_that_file(
    client: TestClient, model: Model, tmp_path: Path
):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number) if number != 2 else b"no image")
    check_same(client, model, sorted(tmp_path.iterdir()))


@pytest.mark.real_data
def test_each_answer_is_what_the_model_predicts_of_real_files(
    client: TestClient, model: Model, real_data: Path
):
    check_same(client, model, sorted((real_data / "nih" / "images").iterdir())[:4])
    for path in sorted((real_data / "dicom").glob("*.dcm")):
        check_same(client, model, [path])


def test_files_that_cannot_be_read_are_answers_beside_the_others(client: TestClient):
    frames = dicom(np.zeros((200, 16, 16), np.uint8), NumberOfFrames=200)
    answer = post(client, png(), b"", ("a.png", png()[:200]), ("a.dcm", frames))
    assert answer.status_code == 200
    statuses = [one["status"] for one in answer.json()["files"]]
    assert statuses[1:] == ["unreadable"] * 3
    assert statuses[0] != "unreadable"
    reasons = [one["reason"] for one in answer.json()["files"][1:]]
    for words, reason in zip(("is empty", r"a.png (200 bytes) cannot", "200 frames"), reasons, strict=True):
        assert words in reason
    assert all(one["probabilities"] is one["decisions"] is None for one in answer.json()["files"][1:])


def test_what_unpacks_to_more_is_not_unpacked(client: TestClient):
    answer = post(client, zip_bomb(), png_bomb(60_000), png_bomb(8_000)).json()
    zipped, huge, large = (one["reason"] for one in answer["files"])
    assert "its content is none of PNG, JPEG, DICOM" in zipped
    assert "60000 x 60000 pixels are more than the 40,000,000 allowed" in huge
    assert "8000 x 8000 pixels are more than" in large


def test_a_deflated_dicom_that_unpacks_to_much_ends_no_service(client: TestClient):
    whole = dicom(np.zeros((16, 16), np.uint8)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    start = 128 + 4 + 12 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(10**7)) for _ in range(90)) + packer.flush()
    answer = post(client, ("a.dcm", whole[:start] + packed), png()).json()
    assert answer["files"][0]["status"] == "unreadable"
    assert answer["files"][1]["status"] != "unreadable"


def test_a_header_that_describes_no_chest_radiograph_is_a_warning(client: TestClient):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    (one,) = post(client, ("a.dcm", dicom(pixels, BodyPartExamined="HAND"))).json()["files"]
    assert one["status"] == "warned"
    assert "body part HAND" in one["reason"]
    assert one["probabilities"] is not None


def test_an_image_unlike_those_of_the_training_is_a_warning(model: Model):
    layout, grey_levels, detail = (Spread.of(torch.randn(100, size)) for size in (64, 16, 7))
    reference = TrainingReference(torch.eye(3, 512).half(), layout, grey_levels, detail, torch.ones(4))
    knowing = Model([replace(model.members[0], reference=reference)])
    with TestClient(build_app(knowing, SMALL), base_url=HERE) as client:
        (one,) = post(client, png()).json()["files"]
    assert one["status"] == "warned"
    assert "unlike" in one["reason"]
    assert one["probabilities"] is not None


def test_what_is_rejected_has_no_values(model: Model):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    settings = replace(SMALL, on_unlike="reject")
    with TestClient(build_app(model, settings), base_url=HERE) as client:
        (one,) = post(client, ("a.dcm", dicom(pixels, BodyPartExamined="HAND"))).json()["files"]
    assert one["status"] == "rejected"
    assert "body part HAND" in one["reason"]
    assert one["probabilities"] is one["calibrated"] is one["decisions"] is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [("../../etc/passwd", "passwd"), ("C:\\scans\\a.dcm", "a.dcm"), ("/", "unnamed"), ("x" * 500, "x" * 120),
     ("a\x1b[31m\u202e.png", "a[31m.png"), ("Röntgen 1.png", "Röntgen 1.png")],
)  # fmt: skip
def test_a_name_is_for_showing_only(given: str, shown: str):
    assert shown_name(given) == shown


def test_nothing_is_written(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    noise = png(1, side=900)
    assert len(noise) > 700_000
    answer = post(client, ("../here.png", noise), (str(tmp_path / "there.png"), png()))
    assert [one["file"] for one in answer.json()["files"]] == ["here.png", "there.png"]
    assert not list(tmp_path.iterdir())


# Limits


def test_too_much_is_413(client: TestClient):
    large = bytes(2_000_001)
    assert "0.png has more than the 2 MB" in post(client, large).json()["detail"]
    assert "may have 4 files" in post(client, *[b"x"] * 5).json()["detail"]
    assert "may have 4 MB" in post(client, *[bytes(1_500_000)] * 3).json()["detail"]
    for files in ([large], [b"x"] * 5, [bytes(1_500_000)] * 3):
        assert post(client, *files).status_code == 413


def test_what_says_that_it_is_too_large_is_not_waited_for(client: TestClient):
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(2 * 10**9)}
    answer = client.post("/predict", headers=headers, content=b"--x")
    assert answer.status_code == 413
    assert "may have 4 MB" in answer.json()["detail"]


def test_an_upload_of_unknown_length_is_read_up_to_the_limit(client: TestClient):
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
        yield from [bytes(100_000)] * 100

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/predict", headers=headers, content=body())
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", b"{}", "as multipart/form-data"),
        ("multipart/form-data", b"--x--", "as multipart/form-data"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "no file"),
        ("multipart/form-data; boundary=x", b"nonsense", "no sound multipart"),
        ("multipart/form-data; boundary=x", b"", "ends early"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n', "no file"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\nabc', "ends early"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 20_000 + b": b\r\n\r\n", "no sound multipart"),
    ],
)  # fmt: skip
def test_what_is_no_upload_is_422(client: TestClient, kind: str, body: bytes, words: str):
    answer = client.post("/predict", headers={"content-type": kind}, content=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_files_in_memory_are_counted_and_let_go():
    waiting = Waiting(10)
    with waiting.counted() as first, waiting.counted() as second:
        first.add(6)
        second.add(4)
        with pytest.raises(Exception, match="Too many files are waiting") as refused:
            second.add(1)
        assert refused.value.status_code == 503
        assert refused.value.headers == {"Retry-After": "2"}
    assert waiting.num_bytes == 0


def test_what_takes_too_long_to_arrive_is_408_and_to_answer_503():
    settings = ServiceSettings(request_seconds=0.1)

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits for it")

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    request = Request({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, receive)
    with Waiting(10).counted() as share, pytest.raises(HTTPException, match=r"408: .* within 0.1 s"):
        asyncio.run(read_uploads(request, settings, share))
    with pytest.raises(HTTPException, match=r"503: This takes more than 0.1 s"):
        asyncio.run(in_time(asyncio.sleep(60), settings))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_files": 0}, "service.max_files=0 must be at least 1"),
        ({"max_request_mb": 10}, "service.max_request_mb=10 must be at least 64"),
        ({"max_megapixels": 500}, "service.max_megapixels=500 must lie between 1 and 134"),
        ({"decode_seconds": 0}, "service.decode_seconds=0 must be at least 0.1"),
        ({"num_decoders": 0}, "service.num_decoders=0 must be at least 1"),
    ],
)
def test_limits_out_of_their_range(values: dict[str, int], words: str):
    with pytest.raises(ConfigError, match=words):
        ServiceSettings(**values)


# Decoders


def pids(pool: DecoderPool) -> list[int]:
    return [decoder._process.pid for decoder in pool._decoders]


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    one = DecoderPool(WAYS, 1, seconds=5.0)
    one.wait_until_ready()
    yield one
    one.close()


def test_a_decoder_that_is_killed_is_replaced_and_the_file_read_again(pool: DecoderPool):
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    decoded = asyncio.run(pool.decode(png(), "a.png"))
    assert [image.pixels.shape for image in decoded.images] == [(1, 32, 32), (3, 48, 48)]
    assert pool.num_replaced == 1
    assert pids(pool) != [pid]


def test_a_decoder_that_hangs_is_ended(pool: DecoderPool):
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DataError, match=r"a\.png \(\d+ bytes\) cannot be read: decoding takes more than 5 s"):
        asyncio.run(pool.decode(png(), "a.png"))
    assert asyncio.run(pool.decode(png(), "a.png")).picture == b""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_picture_for_people_has_the_field_of_view_that_the_network_sees():
    pixels = np.zeros((300, 600), np.uint8)
    pixels[:, :300] = 200
    crop = DecodeSettings((CacheSettings(32, 1, "crop"),), max_pixels=10**6)
    pool = DecoderPool(crop, 1, seconds=20)
    try:
        decoded = asyncio.run(pool.decode(encoded(pixels, "PNG"), "a.png", with_picture=True))
    finally:
        pool.close()
    shown = np.asarray(Image.open(io.BytesIO(decoded.picture)))
    assert shown.shape == (600, 600)
    assert shown[:, 100].mean() == pytest.approx(200, abs=2)
    assert shown[:, 500].mean() == pytest.approx(0, abs=2)


# Batches


def test_images_that_wait_go_together_and_each_result_to_its_own():
    sizes: list[int] = []
    may_go = threading.Event()

    def predict(images: Sequence[int]) -> list[int]:
        may_go.wait(10)
        return [10 * image for image in images]

    async def ask() -> list[int]:
        batcher = Batcher(predict, 4, sizes.append)
        asked = [asyncio.create_task(batcher.predict(n)) for n in range(10)]
        await asyncio.sleep(0.05)
        asked[5].cancel()
        may_go.set()
        got = await asyncio.gather(*asked, return_exceptions=True)
        batcher.close()
        return got

    got = asyncio.run(ask())
    assert isinstance(got.pop(5), asyncio.CancelledError)
    assert got == [0, 10, 20, 30, 40, 60, 70, 80, 90]
    assert max(sizes) == 4
    assert sum(sizes) == 9


def test_what_a_model_raises_goes_to_those_who_asked_and_the_next_are_answered():
    def predict(images: Sequence[int]) -> list[int]:
        if max(images) > 1:
            raise RuntimeError("too bright")
        return [0] * len(images)

    async def ask() -> None:
        batcher = Batcher(predict, 4, lambda _: None)
        with pytest.raises(RuntimeError, match="too bright"):
            await batcher.predict(2)
        assert await batcher.predict(1) == 0
        assert batcher.is_working
        batcher.close()

    asyncio.run(ask())


# Heatmaps


def test_heatmaps_lie_on_the_picture_of_the_file(client: TestClient, model: Model):
    label = model.labels[0]
    answer = post(client, png(), path=f"/heatmaps?label={label}").json()
    assert answer["method"] == "gradcam"
    assert list(answer["heatmaps"]) == [label]
    picture = Image.open(
        io.BytesIO(base64.b64decode(answer["image"].removeprefix("data:image/jpeg;base64,")))
    )
    assert picture.size == (48, 48)
    heat = answer["heatmaps"][label]
    drawn = Image.open(io.BytesIO(base64.b64decode(heat["png"].removeprefix("data:image/png;base64,"))))
    assert (drawn.mode, drawn.size) == ("RGBA", (model.record.image_size,) * 2)
    assert heat["is_empty"] == (np.asarray(drawn)[..., 3].max() == 0)
    assert set(post(client, png(), path="/heatmaps").json()["heatmaps"]) == set(model.labels)


def test_heatmaps_of_what_there_is_not(client: TestClient):
    unknown = post(client, png(), path="/heatmaps?label=Gout")
    assert unknown.status_code == 422
    assert "no label 'Gout'; there are" in unknown.json()["detail"]
    assert post(client, png(), png(), path="/heatmaps").status_code == 413
    unreadable = post(client, b"abc", path="/heatmaps").json()
    assert (unreadable["image"], unreadable["heatmaps"]) == (None, {})
    assert "cannot be read" in unreadable["reason"]


def test_a_model_that_cannot_be_looked_into_shows_the_picture_alone(model: Model):
    outputs_only = Model([replace(member, classifier=None) for member in model.members])
    with TestClient(build_app(outputs_only, SMALL), base_url=HERE) as client:
        assert not client.get("/card").json()["has_heatmaps"]
        answer = post(client, png(), path="/heatmaps").json()
        assert (answer["heatmaps"], answer["reason"]) == ({}, "This model has no heatmaps.")
        assert answer["image"].startswith("data:image/jpeg")


# Facts


def test_health_card_and_metrics(client: TestClient, model: Model):
    assert client.get("/health").json()["status"] == "ok"
    card = client.get("/card").json()
    assert card["labels"] == list(model.labels)
    assert card["model"]["checkpoint"] == model.record.checkpoint != ""
    assert card["limits"]["max_file_mb"] == 2
    assert card["has_heatmaps"]
    before = metrics_of(client)
    post(client, png(), b"nothing")
    client.get("/no/such/page")
    after = metrics_of(client)

    def risen(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert risen('cxrlab_files_total{status="unreadable"}') == 1
    assert risen('cxrlab_requests_total{path="/predict",status="200"}') == 1
    assert risen('cxrlab_requests_total{path="other",status="404"}') == 1
    assert risen("cxrlab_batch_images_total") == 1
    assert after["cxrlab_waiting_bytes"] == 0


def metrics_of(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_the_pages_fetch_nothing_from_elsewhere(client: TestClient):
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/docs", "/docs.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/heatmaps", "/card", "/health", "/metrics"}


# Who may ask


def test_a_token_is_asked_for_where_there_is_one(guarded: TestClient):
    for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer wrong"}):
        answer = post(guarded, png(), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert all(guarded.get(path, headers=headers).status_code == 401 for path in ("/card", "/metrics"))
    assert post(guarded, png(), headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert all(guarded.get(path).status_code == 200 for path in ("/", "/health", "/docs"))


def test_other_sites_are_turned_away(client: TestClient):
    assert client.get("/card", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/card", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/card", headers={"Origin": HERE}).status_code == 200
    assert client.get("/card", headers={"Origin": "null"}).status_code == 403
    for host in ("localhost:9", "[::1]:8000", "127.0.0.2", "LOCALHOST"):
        assert client.get("/card", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "token", "words"),
    [
        (
            "0.0.0.0",
            "",
            "host=0.0.0.0 is reached by other computers, so that requests need a token. Make one: ",
        ),
        ("192.168.1.7", None, "is reached by other computers"),
        ("127.0.0.1", "short", "The token has 5 signs: it takes 16 at least"),
    ],
)
def test_a_service_for_others_needs_a_token(host: str, token: str | None, words: str):
    with pytest.raises(ConfigError, match=words):
        check_token(host, token)
    check_token("127.0.0.1", "")
    check_token("0.0.0.0", TOKEN)


def test_an_address_that_cannot_be_had_is_told():
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"port={port} is in use: something listens on 127.0.0.1 there"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="host=no.such.host.invalid is no address"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(ConfigError, match="host=192.0.2.1 is no address of this computer"):
        listen("192.0.2.1", 0)


# Fuzz


def mutated(data: bytes, generator: random.Random) -> bytes:
    """A file with a few bytes changed, or a piece cut out, doubled, or missing at the end."""
    changed = bytearray(data)
    kind = generator.randrange(4)
    if kind == 0:
        for _ in range(generator.randrange(1, 20)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
    elif kind == 1:
        del changed[generator.randrange(len(changed)) :]
    else:
        start, length = generator.randrange(len(changed)), generator.randrange(1, 64)
        piece = changed[start : start + length]
        changed[start : start + length] = b"" if kind == 2 else piece * 3
    return bytes(changed)


@pytest.mark.slow
def test_500_damaged_files_end_nothing(client: TestClient):
    generator = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    sources = [encoded(pixels, "PNG"), encoded(pixels, "JPEG"), dicom(pixels)]
    before = post(client, sources[0]).json()["files"][0]
    seen = set()
    for _ in range(125):
        files = [mutated(generator.choice(sources), generator) for _ in range(4)]
        answer = post(client, *files)
        assert answer.status_code == 200
        seen |= {one["status"] for one in answer.json()["files"]}
        assert len(answer.json()["files"]) == 4
    assert "unreadable" in seen
    assert len(seen) > 1
    assert post(client, sources[0]).json()["files"][0] == before
    assert client.get("/health").status_code == 200
