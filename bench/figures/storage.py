"""A conversation of 20 turns, saved after each, and four branches of it: bytes on disk.

Both keep a restore point for every turn and every branch: 24 checkpoints, 24
slot files. What the peer takes with only the newest file of the conversation
and of each branch is told beside it. Counted: blocks of all files, Holdfast's
database and its log included.
"""

from __future__ import annotations

from bench import files, holdfast, text
from bench.holdfast import Holdfast
from bench.llama_server import LlamaServer
from bench.result import at_most
from bench.run import Run

_CELLS = 8192
_FIRST = 1024
_SAID, _ANSWERED = 64, 64
_TURNS, _FORKS = 20, 4


def run(run: Run) -> None:
    """Holds the conversation once on each side: bytes do not vary."""
    run.result.rounds = 1
    turns = _TURNS
    ours = run.holdfast("holdfast", cells=_CELLS)
    _ours(ours, turns)
    theirs = run.llama_server("llama-server", cells=_CELLS, more=("-np", "1"))
    newest = _theirs(theirs, turns)
    kept = files.disk_bytes(ours.data)
    peers = files.disk_bytes(theirs.slots)
    run.result.figures |= {
        "turns": turns,
        "holdfast.bytes": kept,
        "holdfast.page_bytes": files.disk_bytes(ours.data / "blobs"),
        "peer.bytes": peers,
        "peer.bytes_newest_only": newest,
        "holdfast_over_peer_newest_only": kept / newest,
    }
    run.result.goals["bytes"] = at_most(kept / peers, 0.10)


def _said(turn: int) -> str:
    return text.words(_FIRST if turn == 0 else _SAID, seed=turn)


def _ours(server: Holdfast, turns: int) -> None:
    session, last = server.session(), ""
    for turn in range(turns):
        session.append(_said(turn))
        holdfast.complete(session, _ANSWERED)
        last = session.checkpoint().checkpoint_id
    for fork in range(_FORKS):
        branch = server.client.restore(last).session
        branch.append(_said(turns + fork))
        holdfast.complete(branch, _ANSWERED)
        branch.checkpoint()


def _theirs(server: LlamaServer, turns: int) -> int:
    """The same; bytes of the newest file of the conversation and of each branch."""
    conversation = ""
    for turn in range(turns):
        conversation += _said(turn)
        conversation += server.complete(conversation, _ANSWERED).text
        server.slot("save", f"turn-{turn}")
    newest = [f"turn-{turns - 1}"]
    for fork in range(_FORKS):
        server.slot("restore", newest[0])
        server.complete(conversation + _said(turns + fork), _ANSWERED)
        server.slot("save", f"fork-{fork}")
        newest.append(f"fork-{fork}")
    return sum((server.slots / name).stat().st_blocks * 512 for name in newest)
