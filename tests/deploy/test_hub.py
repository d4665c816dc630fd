"""Shared folders on the Hugging Face Hub, of which a small server on this machine answers the calls."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import cxrlab
from cxrlab.deploy import hub
from cxrlab.deploy.record import record_of
from cxrlab.deploy.shared_folder import read_shared_folder, write_shared_folder
from cxrlab.errors import CheckpointError, ConfigError, MissingFileError, OutputError, UserError
from cxrlab.models import TimmNetwork
from cxrlab.training.module import Classifier

TOKEN = "hf_of_a_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StandIn:
    """What the Hub keeps: of each repository whether it is private, and its files."""

    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def tree(self, name: str) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            for path, content in self.files[name].items()
        ]


def blob_id(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """The calls of the Hub's client that create, upload, list and download."""

    stand_in: StandIn

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.stand_in.calls.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/preupload/main", path):
            wanted = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.answer({"files": [{"path": file, **modes} for file in wanted]})
        elif match := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/commit/main", path):
            self.commit(match[1], body)
        else:
            self.answer({"error": "Not Found"}, 404)

    def create(self, wanted: dict[str, object]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        status = 409 if name in self.stand_in.files else 200
        self.stand_in.private.setdefault(
            name, wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        self.stand_in.files.setdefault(name, {})
        self.answer({"url": f"{self.stand_in.address}/{name}", "name": name}, status)

    def commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.stand_in.files[name][line["value"]["path"]] = content
            elif line["key"] == "deletedFile":
                del self.stand_in.files[name][line["value"]["path"]]
        self.answer({"commitUrl": f"{self.stand_in.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.stand_in.calls.append(f"{self.command} {path}")
        match = re.match(r"/(?:api/models/)?([\w-]+/[\w-]+)/(revision|tree|resolve)/(\w+)(?:/(.*))?", path)
        files = None if match is None else self.stand_in.files.get(match[1])
        if match is not None and match[1] in self.stand_in.gated:
            self.answer({"error": "gated"}, 403, **{"X-Error-Code": "GatedRepo"})
        elif match is None or files is None:
            self.answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        elif match[3] not in ("main", COMMIT):
            self.answer({"error": "Invalid rev id"}, 404, **{"X-Error-Code": "RevisionNotFound"})
        elif match[2] == "revision":
            siblings = [{"rfilename": file} for file in files]
            self.answer({"id": match[1], "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif match[2] == "tree":
            self.answer(self.stand_in.tree(match[1]))
        else:
            content = files[match[4]]
            self.answer(content, **{"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The server, as the Hub's client finds it, with a cache of its own and nobody logged in."""
    kept = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answers,), {"stand_in": kept}))
    kept.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_hub(kept.address, tmp_path, monkeypatch)
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


def use_hub(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's client ask an address, with a cache of its own and nobody logged in."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared folder of a small network."""
    torch.manual_seed(0)
    made = Classifier(labels=["Edema"], network=TimmNetwork("resnet10t", num_labels=1, image_size=32)).eval()
    folder = tmp_path_factory.mktemp("model") / "edema"
    write_shared_folder(
        made, folder, record=record_of(made, licence="MIT"), card="---\nlicense: mit\n---\n# Edema\n"
    )
    (folder / "notes.txt").write_text("not for others")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_what_is_pushed_is_private_at_first_and_is_what_is_downloaded(model: Path, stand_in: StandIn):
    address = hub.push(model, "our-lab/edema", token=TOKEN)
    assert address == f"{stand_in.address}/our-lab/edema"
    assert stand_in.private == {"our-lab/edema": True}
    assert set(stand_in.files["our-lab/edema"]) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "thresholds.json",
    }
    folder = hub.download("our-lab/edema")
    expected = digests(model)
    del expected["notes.txt"]
    assert digests(folder) == expected
    assert (
        cxrlab.load_model("our-lab/edema").labels
        == cxrlab.load_model("our-lab/edema@main").labels
        == ["Edema"]
    )
    record, read, _ = read_shared_folder(folder)
    assert (record.licence, read.labels) == ("MIT", ["Edema"])


def test_other_files_of_a_repository_are_not_fetched(model: Path, stand_in: StandIn):
    hub.push(model, "our-lab/edema", token=TOKEN, private=False)
    assert stand_in.private == {"our-lab/edema": False}
    stand_in.files["our-lab/edema"] |= {"pytorch_model.bin": b"a pickle", "run.py": b"import os"}
    assert {path.name for path in hub.download(f"our-lab/edema@{COMMIT}").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "thresholds.json"
    }  # fmt: skip


def test_pushing_again_keeps_the_repository(model: Path, stand_in: StandIn):
    hub.push(model, "our-lab/edema", token=TOKEN, private=False)
    hub.push(model, "our-lab/edema", token=TOKEN, private=True)
    assert stand_in.private == {"our-lab/edema": False}


def test_pushing_again_without_a_sample_takes_the_earlier_one_back(
    model: Path, stand_in: StandIn, tmp_path: Path
):
    folder = Path(shutil.copytree(model, tmp_path / "edema"))
    (folder / "predictions_sample.csv").write_text("target/Edema\n1\n")
    hub.push(folder, "our-lab/edema", token=TOKEN)
    assert "predictions_sample.csv" in stand_in.files["our-lab/edema"]
    stand_in.files["our-lab/edema"] |= {"LICENSE": b"theirs", ".gitattributes": b"* text"}
    hub.push(folder, "our-lab/edema", token=TOKEN)
    assert "predictions_sample.csv" in stand_in.files["our-lab/edema"]
    (folder / "predictions_sample.csv").unlink()
    hub.push(folder, "our-lab/edema", token=TOKEN)
    assert sorted(stand_in.files["our-lab/edema"]) == [
        ".gitattributes", "LICENSE", "README.md", "config.json", "model.safetensors", "thresholds.json"
    ]  # fmt: skip


def test_what_is_no_shared_folder_is_not_pushed(stand_in: StandIn, tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(MissingFileError, match=r"push=our-lab/edema: .* is no shared model of cxrlab"):
        hub.push(tmp_path, "our-lab/edema", token=TOKEN)
    assert not stand_in.calls


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"config.json": b'{"model_type": "vit"}'}, CheckpointError, r"config\.json is of another program"),
        ({}, MissingFileError, r"our-lab/vit of the Hugging Face Hub is no .* it has no config\.json"),
    ],
)
def test_weights_of_another_program_are_not_fetched(
    files: dict[str, bytes], error: type[UserError], message: str, stand_in: StandIn
):
    stand_in.files["our-lab/vit"] = {"model.safetensors": b"much", **files}
    with pytest.raises(error, match=message):
        hub.download("our-lab/vit")
    assert not [call for call in stand_in.calls if "model.safetensors" in call]


def test_without_the_hub_a_model_comes_from_the_cache(
    model: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
):
    hub.push(model, "our-lab/edema", token=TOKEN)
    folder = hub.download("our-lab/edema")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:1")
    assert hub.download("our-lab/edema") == folder
    with pytest.raises(
        MissingFileError, match=r"There is no file or folder our-lab/mass, .*could not be fetched"
    ):
        hub.download("our-lab/mass")


def test_what_the_hub_does_not_give_is_told(model: Path, stand_in: StandIn):
    with pytest.raises(
        MissingFileError, match="no model of that name on the Hugging Face Hub that you may see"
    ):
        hub.download("our-lab/edema")
    hub.push(model, "our-lab/edema", token=TOKEN)
    with pytest.raises(MissingFileError, match="our-lab/edema@v9, and no model of that name"):
        hub.download("our-lab/edema@v9")
    stand_in.gated.add("our-lab/edema")
    with pytest.raises(
        ConfigError, match="our-lab/edema of the Hugging Face Hub is gated. Agree to its terms"
    ):
        hub.download("our-lab/edema")


@pytest.mark.parametrize("name", ["edema", "a/b/c", "our lab/edema", "our-lab/edema@main", "../edema"])
def test_a_name_that_is_none_is_told_before_anything_is_sent(name: str, model: Path, stand_in: StandIn):
    with pytest.raises(ConfigError, match=re.escape(f"push={name} must be owner/name")):
        hub.push(model, name, token=TOKEN)
    assert not stand_in.calls


def test_without_a_token_nothing_is_sent(model: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ConfigError, match="push=our-lab/edema needs a token .* hf auth login, or set HF_TOKEN"
    ):
        hub.push(model, "our-lab/edema")
    assert not stand_in.calls
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.push(model, "our-lab/edema")
    assert "our-lab/edema" in stand_in.files


def test_a_token_without_the_right_keeps_the_folder(model: Path, stand_in: StandIn):
    before = digests(model)
    with pytest.raises(
        OutputError, match=r"did not take it: .*401.* The folder .*edema is complete: push it again"
    ):
        hub.push(model, "our-lab/edema", token="hf_of_another")
    assert digests(model) == before
    assert not stand_in.files


def test_offline_says_so(model: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set in the environment"):
        hub.push(model, "our-lab/edema", token=TOKEN)
    assert not stand_in.calls


def test_nobody_at_the_address_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    use_hub(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
    with pytest.raises(OutputError, match=r"did not take it: ConnectError.*once there is a network"):
        hub.push(model, "our-lab/edema", token=TOKEN)


def test_the_command_pushes(finished_run: Path, stand_in: StandIn, tmp_path: Path):
    words = [f"run={finished_run}", "output=ours", "licence=MIT", "push=our-lab/edema"]
    env = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    env |= {"HF_ENDPOINT": stand_in.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab", "share", *words], env=env, cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"On the Hub: {stand_in.address}/our-lab/edema" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    pushed = stand_in.files["our-lab/edema"]
    assert {name: sha256(content).hexdigest() for name, content in pushed.items()} == digests(
        tmp_path / "ours"
    )
    assert not any(TOKEN.encode() in content for content in pushed.values())
