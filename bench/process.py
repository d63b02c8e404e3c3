"""A server process, and what it has used so far. Linux: the counters come from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path


class Process:
    """One running server; its log goes to a file."""

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                arguments, stdout=subprocess.PIPE, stderr=output, env=dict(environment or os.environ)
            )

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def first_line(self) -> str:
        """Waits for the first line on its standard output; empty when it ended without one."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().decode()

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and waits for the end; SIGKILL after 20 seconds."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.running:
            self._popen.send_signal(number)
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def cpu_seconds(self) -> float:
        """Processor time of all its threads."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The most memory it ever had resident."""
        return 1024 * int(self._field("status", "VmHWM").split()[0])

    def written_bytes(self) -> int:
        """Bytes it caused to be written to disk, journals and metadata of its database included."""
        return int(self._field("io", "write_bytes"))

    def _field(self, file: str, name: str) -> str:
        lines = (line.partition(":") for line in self._read(file).splitlines())
        return next(value.strip() for key, _, value in lines if key == name)

    def _read(self, file: str) -> str:
        return Path(f"/proc/{self._popen.pid}/{file}").read_text()
