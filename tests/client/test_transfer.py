"""Checkpoints as files: whole, resumed, and never mistaken for another."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import (
    AsyncClient,
    Client,
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    RestoreMode,
    UnavailableError,
)
from tests.client.conftest import Fake
from tests.client.test_cli import HOLDFAST
from tests.conftest import RunningServer

FILE = random.Random(1).randbytes(4500)


@pytest.fixture
async def client(fake: Fake) -> AsyncClient:
    fake.service.file = FILE
    return AsyncClient(fake.address)


async def test_an_export_arrives_whole(fake: Fake, client: AsyncClient, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = await client.export_checkpoint("c", tmp_path / "c.hf", lambda *done: seen.append(done))
    assert (tmp_path / "c.hf").read_bytes() == FILE
    assert (result.total_bytes, result.sha256) == (4500, hashlib.sha256(FILE).hexdigest())
    assert seen == [(1000, None), (2000, None), (3000, None), (4000, None), (4500, 4500)]
    assert [path.name for path in tmp_path.iterdir()] == ["c.hf"]
    buffer = io.BytesIO()
    assert await client.export_checkpoint("c", buffer) == result
    assert buffer.getvalue() == FILE
    await client.close()


async def test_a_broken_export_goes_on(fake: Fake, client: AsyncClient) -> None:
    fake.service.breaks = [2000, 1000]
    buffer = io.BytesIO()
    await client.export_checkpoint("c", buffer)
    assert buffer.getvalue() == FILE
    assert fake.service.offsets == [0, 2000, 3000]
    fake.service.breaks = [0] * 100
    with pytest.raises(UnavailableError):
        await client.export_checkpoint("c", io.BytesIO())
    await client.close()


async def test_an_export_goes_on_with_the_part_of_an_earlier_one(
    fake: Fake, client: AsyncClient, tmp_path: Path
) -> None:
    target, part = tmp_path / "c.hf", tmp_path / "c.hf.part"
    part.write_bytes(FILE[:2500])
    await client.export_checkpoint("c", target)
    assert (target.read_bytes(), part.exists(), fake.service.offsets) == (FILE, False, [2500])
    fake.service.offsets.clear()
    part.write_bytes(b"of another checkpoint")
    await client.export_checkpoint("c", str(target))
    assert (target.read_bytes(), part.exists(), fake.service.offsets) == (FILE, False, [21, 0])
    await client.close()


async def test_a_damaged_export_is_no_file(fake: Fake, client: AsyncClient, tmp_path: Path) -> None:
    fake.service.corrupt = True
    with pytest.raises(DataLossError):
        await client.export_checkpoint("c", tmp_path / "c.hf")
    assert not (tmp_path / "c.hf").exists()
    await client.close()


async def test_an_import_arrives_whole(fake: Fake, client: AsyncClient, tmp_path: Path) -> None:
    big = random.Random(2).randbytes(3 << 20)
    (tmp_path / "c.hf").write_bytes(big)
    seen: list[tuple[int, int | None]] = []
    result = await client.import_checkpoint(tmp_path / "c.hf", "mine", lambda *done: seen.append(done))
    assert (result.checkpoint.checkpoint_id, result.pages_imported) == ("mine", True)
    assert fake.service.imported == {"mine": big}
    assert seen[-1] == (3 << 20, 3 << 20)
    await client.import_checkpoint(io.BytesIO(FILE))
    assert fake.service.imported["exported"] == FILE
    await client.close()


async def test_a_broken_import_goes_on(fake: Fake, client: AsyncClient) -> None:
    big = random.Random(2).randbytes(5 << 20)
    fake.service.breaks = [2 << 20, 1 << 20]
    source = io.BytesIO(b"before" + big)
    source.seek(6)
    await client.import_checkpoint(source, "mine")
    assert fake.service.imported == {"mine": big}
    assert fake.service.offsets == [0, 2 << 20, 3 << 20]
    fake.service.breaks = [0] * 100
    with pytest.raises(UnavailableError):
        await client.import_checkpoint(io.BytesIO(big))
    await client.close()


async def test_a_file_that_cannot_be_read_fails_as_itself(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client.import_checkpoint(tmp_path / "none")

    class Torn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        await client.import_checkpoint(Torn(b"x"))
    await client.close()


def test_the_commands(fake_elsewhere: Fake, tmp_path: Path) -> None:
    fake_elsewhere.service.file = FILE
    at = ["-a", fake_elsewhere.address]
    holdfast = str(HOLDFAST)
    done = subprocess.run([holdfast, "export", "c", *at], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, FILE)
    assert done.stderr.startswith(b"exported c: 4500 bytes")
    output = tmp_path / "c.hf"
    saved = [holdfast, "export", "c", "--json", "-o", str(output), *at]
    done = subprocess.run(saved, capture_output=True, timeout=60)
    assert json.loads(done.stdout) == {
        "total_bytes": 4500,
        "sha256": hashlib.sha256(FILE).hexdigest(),
    }
    assert (output.read_bytes(), done.stderr) == (FILE, b"")
    imported = [holdfast, "import", "--checkpoint-id", "d", "--json", *at]
    done = subprocess.run(imported, capture_output=True, timeout=60, input=FILE)
    assert json.loads(done.stdout) == {"checkpoint_id": "d", "token_count": 7, "pages_imported": True}
    done = subprocess.run([holdfast, "import", str(output), *at], capture_output=True, timeout=60)
    assert done.stdout == b"imported exported: 7 tokens, with its pages\n"
    assert fake_elsewhere.service.imported == {"d": FILE, "exported": FILE}
    done = subprocess.run([holdfast, "import", str(tmp_path / "no"), *at], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1


async def test_between_real_servers(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "kelp.hf"
    async with AsyncClient(server.address) as client:
        session = await client.create_session(temperature=0.0, max_tokens=8)
        await session.append("What holds the kelp?")
        taken = await session.checkpoint("kelp")
        await client.export_checkpoint(taken, path)
        twin = await session.complete()
        await client.delete_checkpoint(taken)
        result = await client.import_checkpoint(path)
        assert result.checkpoint.checkpoint_id == "kelp"
        restored = await client.restore(result.checkpoint)
        assert (restored.mode, restored.usage.prefilled_tokens) == (RestoreMode.RESTORED, 0)
        assert (await restored.session.complete()).token_ids == twin.token_ids
        with pytest.raises(NotFoundError):
            await client.export_checkpoint("none", tmp_path / "none")
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InvalidArgumentError) as refused:
            await client.import_checkpoint(path, "cut")
        assert refused.value.reason == "IMPORT_REFUSED"


def test_the_synchronous_face(fake_elsewhere: Fake, tmp_path: Path) -> None:
    fake_elsewhere.service.file = FILE
    with Client(fake_elsewhere.address) as client:
        client.export_checkpoint("c", tmp_path / "c.hf")
        assert client.import_checkpoint(tmp_path / "c.hf").pages_imported
    assert fake_elsewhere.service.imported == {"exported": FILE}


def test_no_binary_file_is_printed_on_a_terminal() -> None:
    program = (
        "import sys; sys.stdout.isatty = lambda: True\n"
        "from holdfast._commands import run; run(['export', 'c', '-a', '127.0.0.1:1'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "> FILE" in done.stderr
