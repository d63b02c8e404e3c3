"""Every command of docs/grpcurl.md does what the page says, through reflection alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import REPOSITORY, RunningServer

PAGE = (REPOSITORY / "docs" / "grpcurl.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(sh|json)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PLACEHOLDER = "127.0.0.1:50051"
TOOLS = {"buf": "buf curl", "grpcurl": "grpcurl"}
PATH = f"{REPOSITORY / '.venv-proto' / 'bin'}{os.pathsep}{os.environ['PATH']}"


def commands(tool: str) -> Iterator[tuple[str, list[Any]]]:
    """The scripts for one tool, the shorthand's definition in front, each with the replies shown."""
    shorthand = ""
    foreign = [name for other, name in TOOLS.items() if other != tool]
    for number, (language, text) in enumerate(BLOCKS):
        if language != "sh" or any(re.search(rf"^ *{name} ", text, re.MULTILINE) for name in foreign):
            continue
        if text.startswith("rpc()"):
            shorthand = text
            continue
        following = BLOCKS[number + 1 : number + 2]
        shown = following[0][1] if following and following[0][0] == "json" else ""
        yield f"set -euo pipefail\n{shorthand}{text}", list(documents(shown))


def documents(text: str) -> Iterator[Any]:
    """JSON documents, one after the other, their names written as JSON does: sessionId."""
    decoder, text = json.JSONDecoder(object_pairs_hook=_camel_case), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].strip()


def _camel_case(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {re.sub(r"_(.)", lambda match: match[1].upper(), name): value for name, value in pairs}


def holds(whole: Any, part: Any) -> bool:
    """Whether everything in `part` is in `whole`."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and holds(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(holds(w, p) for w in whole) for p in part)
    return bool(whole == part)


async def run(script: str, folder: Path) -> str:
    """What a script prints; its failure fails the test with what it said."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=folder,
        env={**os.environ, "PATH": PATH},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, f"{script}\n{errors.decode()}"
    return output.decode()


@pytest.mark.parametrize("tool", TOOLS)
async def test_the_page_is_true(tool: str, server: RunningServer, tmp_path: Path) -> None:
    if shutil.which(tool, path=PATH) is None:
        pytest.skip(f"{tool} is not installed")
    Image.effect_mandelbrot((320, 240), (-2, -1.5, 1, 1.5), 50).save(tmp_path / "kelp.jpg")
    checked = 0
    for script, shown in commands(tool):
        output = await run(script.replace(PLACEHOLDER, server.address), tmp_path)
        replies = list(documents(output)) if shown else []
        for part in shown:
            assert any(holds(reply, part) for reply in replies), f"{script}\n{output}"
            checked += 1
    assert checked >= 9
    assert "shore" not in output  # the last command lists what is left


def test_both_tools_have_every_command() -> None:
    buf, grpcurl = ([s for s, _ in commands(tool) if "rpc() {" in s] for tool in TOOLS)
    bodies = [[script.split("\n}\n")[-1] for script in scripts] for scripts in (buf, grpcurl)]
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) > 8


def test_the_comparison_can_fail() -> None:
    reply = {"a": {"b": [1, {"c": 2, "d": 3}]}}
    assert holds(reply, {"a": {"b": [{"c": 2}]}})
    assert not holds(reply, {"a": {"b": [{"c": 3}]}})
    assert not holds(reply, {"a": {"e": 1}})
