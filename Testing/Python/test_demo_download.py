# SPDX-License-Identifier: Apache-2.0
"""The download: right data arrive, anything else is told in one sentence and soon."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from barl import hippocampus
from barl.demo.download import download
from barl.demo.sources import Counts, choose
from barl.errors import InputError, StorageError
from barl.progress import Progress


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


ARCHIVE = tar_of(
    {
        **{
            f"Task04_Hippocampus/{part}Tr/hippocampus_{n:03d}.nii.gz": f"{part} {n}".encode() * 20_000
            for part in ("images", "labels")
            for n in range(1, 9)
        },
        "Task04_Hippocampus/imagesTr/._hippocampus_001.nii.gz": b"a Mac's leftover",
        "Task04_Hippocampus/imagesTs/hippocampus_002.nii.gz": b"a test image",
        "../outside.txt": b"must not leave the archive",
    }
)
MD5 = hashlib.md5(ARCHIVE).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; ``server.behavior`` is what it does, ``server.asked`` how often it was asked."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            if self.server.behavior == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(ARCHIVE)))
            self.end_headers()
            if self.server.behavior == "whole":
                self.wfile.write(ARCHIVE)
                return
            self.wfile.write(ARCHIVE[: len(ARCHIVE) // 2])
            if self.server.behavior == "stall":
                over.wait(120)
            while self.server.behavior == "trickle" and not over.wait(0.05):
                self.wfile.write(b"x" * 512)

        def log_message(self, *_):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.behavior, served.asked = "whole", 0
    served.address = f"http://127.0.0.1:{served.server_port}/Task04_Hippocampus.tar"
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    over.set()
    served.shutdown()
    served.server_close()


def test_cases_arrive_with_progress_and_once(server, tmp_path):
    told: list[dict] = []
    folder = download(tmp_path / "data", Progress(told.append), address=server.address, md5=MD5)
    images = sorted(path.name for path in (folder / "images").iterdir())
    assert images == [f"hippocampus_{n:03d}.nii.gz" for n in range(1, 9)]
    assert (folder / "labels" / "hippocampus_003.nii.gz").read_bytes() == b"labels 3" * 20_000
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {*images, "Task04_Hippocampus.tar"}
    assert {event["stage"] for event in told} == {"downloading"}
    assert told[-1]["fraction"] == 1.0
    assert told[-1]["message"].endswith(f"of {len(ARCHIVE) / 1e6:.1f} MB")

    download(folder, address=server.address, md5=MD5)
    assert server.asked == 1, "what lies there and has the right checksum is not fetched again"
    (folder / "Task04_Hippocampus.tar").write_bytes(b"damaged")
    download(folder, address=server.address, md5=MD5)
    assert server.asked == 2


@pytest.mark.parametrize(
    ("behavior", "md5", "reason"),
    [
        ("whole", "0" * 32, "checksum"),
        ("half", MD5, "checksum|ended|closed"),
        ("missing", MD5, "Not Found"),
        ("stall", MD5, "does not answer"),
        ("trickle", MD5, "longer than"),
    ],
)
def test_anything_else_is_one_sentence_soon_and_leaves_nothing(server, tmp_path, behavior, md5, reason):
    server.behavior = behavior
    longest, silence = (1.0 if behavior == "trickle" else 300.0), (0.5 if behavior == "stall" else 30.0)
    started = time.monotonic()
    with pytest.raises(InputError, match=reason) as caught:
        download(tmp_path, address=server.address, md5=md5, silence_s=silence, longest_s=longest)
    assert time.monotonic() - started < 60, "given up long before the server is done"
    assert "BARL_DATA" in caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_server_and_no_such_name(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match="cannot be reached"):
        download(tmp_path, address="http://127.0.0.1:9/x.tar", md5=MD5, silence_s=1)
    with pytest.raises(InputError, match="could not be downloaded"):
        download(tmp_path, address="http://no-such-host.invalid/x.tar", md5=MD5, silence_s=1)


def test_a_folder_that_cannot_be_made_is_the_disks_fault(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        download(tmp_path / "file" / "data", address=server.address, md5=MD5)


def test_address_and_checksum_are_monais():
    monai = pytest.importorskip("monai")
    table = (Path(monai.__file__).parent / "apps" / "datasets.py").read_text(encoding="utf-8")
    assert f'"Task04_Hippocampus": "{hippocampus.ADDRESS}"' in table
    assert f'"Task04_Hippocampus": "{hippocampus.MD5}"' in table


def test_downloaded_cases_are_dealt_out_by_subject(server, tmp_path, monkeypatch):
    monkeypatch.delenv("BARL_DATA", raising=False)
    said = []
    counts = Counts(outlined=1, untouched=2, held_out=1)

    def fetch(folder, progress):
        return download(folder, progress, address=server.address, md5=MD5)

    data = choose("auto", tmp_path, counts, tell=said.append, fetch=fetch)
    assert said == ["The variable BARL_DATA is not set."]
    assert not data.simulated
    assert "CC BY-SA 4.0" in data.license
    names = [case.name for part in (data.outlined, data.untouched, data.held_out) for case in part]
    assert sorted((int(name[-3:]) + 1) // 2 for name in names) == [1, 2, 3, 4]
    with pytest.raises(InputError, match="only 4 usable subjects"):
        choose("download", tmp_path, fetch=fetch)
