"""The peer: llama-server, through its HTTP API."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import peer
from bench.process import Process
from models.bench import BenchModel

_POLL_SECONDS = 0.002
_START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished completion."""

    first_token_seconds: float
    text: str
    prompt_tokens: int
    """Prompt tokens computed for it; the others were in the slot."""


class LlamaServer:
    """One llama-server with its own folder of slot files. Every request has a connection of its own.

    A kept connection would add waits for delayed acknowledgements to the peer's times.
    """

    name = "llama-server"

    def __init__(
        self, model: BenchModel, folder: Path, *, cells: int, threads: int, more: Sequence[str] = ()
    ):
        self.slots = folder / "slots"
        self.slots.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._port = _free_port()
        files = ["-m", str(model.model), "--mmproj", str(model.projector)]
        sizes = ["-c", str(cells), "-t", str(threads), "--slot-save-path", f"{self.slots}/"]
        address = ["--host", "127.0.0.1", "--port", str(self._port)]
        self._arguments = [str(peer.require()), *files, *sizes, *address, "--offline", *more]
        self.process: Process = self._start()

    def _start(self) -> Process:
        process = Process(self._arguments, self._folder / "log")
        deadline = time.monotonic() + _START_SECONDS
        while not self._healthy():
            if not process.running or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"llama-server did not start; see {process.log}")
            time.sleep(_POLL_SECONDS)
        return process

    def restart(self) -> None:
        """Starts it again after `process.kill()`; returns when it serves."""
        self.process = self._start()

    def close(self) -> None:
        """Ends it."""
        self.process.stop()

    def complete(
        self, prompt: str, tokens: int, *, slot: int = 0, pictures: Sequence[bytes] = ()
    ) -> Completed:
        """Generates `tokens` tokens greedily; `prompt` holds one "<__media__>" for each picture."""
        body = {
            "prompt": self._prompt(prompt, pictures),
            "n_predict": tokens,
            "cache_prompt": True,
            "id_slot": slot,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        started = time.perf_counter()
        connection = self._request("POST", "/completion", body)
        first, text, last = 0.0, "", {}
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                last = json.loads(line[6:])
                first = first or time.perf_counter() - started
                text += last.get("content", "")
        connection.close()
        if "timings" not in last:
            raise RuntimeError(f"llama-server did not complete: {last}")
        return Completed(first, text, int(last["timings"]["prompt_n"]))

    def slot(self, action: str, filename: str = "", slot: int = 0) -> dict[str, Any]:
        """Saves, restores or erases a slot. Raises RuntimeError when it is refused."""
        connection = self._request("POST", f"/slots/{slot}?action={action}", {"filename": filename})
        return self._answer(connection)

    def _prompt(self, prompt: str, pictures: Sequence[bytes]) -> Any:
        if not pictures:
            return prompt
        marker = self._answer(self._request("GET", "/props"))["media_marker"]
        data = [base64.b64encode(picture).decode() for picture in pictures]
        return {"prompt_string": prompt.replace("<__media__>", marker), "multimodal_data": data}

    def _healthy(self) -> bool:
        try:
            connection = self._request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def _request(self, method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", "Connection": "close"})
        return connection

    @staticmethod
    def _answer(connection: http.client.HTTPConnection) -> dict[str, Any]:
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"llama-server refused: {answer}")
        return answer


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
