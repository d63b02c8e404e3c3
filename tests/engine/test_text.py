"""Tokens' bytes to text: whole characters, stop strings wherever they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.engine.text import TextStream

pieces = st.lists(st.binary(max_size=6), max_size=20)


@given(pieces)
def test_without_stop_strings_nothing_is_lost_or_added(parts: list[bytes]) -> None:
    stream = TextStream(())
    text = "".join(stream.push(part) for part in parts) + stream.finish()
    assert text == b"".join(parts).decode("utf-8", "replace")


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=4), st.integers(1, 5))
def test_text_ends_before_the_first_stop_string(whole: str, stops: list[str], size: int) -> None:
    stream = TextStream(stops)
    data = whole.encode("utf-8", "replace")
    text = ""
    for start in range(0, len(data), size):
        text += stream.push(data[start : start + size])
        if stream.matched:
            break
    text += stream.finish()
    clean = data.decode("utf-8", "replace")
    found = [clean.index(stop) for stop in stops if stop in clean]
    assert text == (clean[: min(found)] if found else clean)
    assert bool(stream.matched) == bool(found)


def test_a_character_is_held_back_until_it_is_whole() -> None:
    stream = TextStream(())
    assert [stream.push(bytes([byte])) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_the_beginning_of_a_stop_string_is_held_back_and_released() -> None:
    stream = TextStream(["END"])
    assert [stream.push(part) for part in (b"xE", b"N", b"Ey")] == ["x", "", "ENEy"]
