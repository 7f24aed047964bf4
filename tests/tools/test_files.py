"""File tools: their results inside the root, and attempts of a model or another process to leave it."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent import ToolError
from lmagent.tools import files
from lmagent.tools.files import file_tools

SECRET = "the secret outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET)
    inside = tmp_path / "root"
    (inside / "sub" / "deep").mkdir(parents=True)
    (inside / "a.txt").write_text("one\ntwo\nthree\n")
    (inside / "sub" / "b.py").write_text("# two\nprint('zwei')\n")
    (inside / "sub" / "deep" / "笔记.txt").write_text("第二 two\n")
    (inside / ".env").write_text("KEY=" + SECRET)
    return inside


def tools(root: Path | str, **options: Any) -> dict[str, Callable[..., str]]:
    return {tool.name: tool for tool in file_tools(root, **options)}


def test_read_file_returns_the_text_or_some_lines(root: Path):
    read = tools(root)["read_file"]
    assert read("a.txt") == "one\ntwo\nthree\n"
    assert read("./sub//b.py") == "# two\nprint('zwei')\n"
    assert read("sub/deep/笔记.txt") == "第二 two\n"
    assert read("a.txt", first_line=2, line_count=1) == "two"
    assert read("a.txt", first_line=3) == "three\n"


def test_list_files_shows_sizes_patterns_and_folders(root: Path):
    list_files = tools(root)["list_files"]
    assert list_files() == "a.txt 14\nsub/"
    assert list_files("sub") == "b.py 20\ndeep/"
    assert list_files(recursive=True) == "a.txt 14\nsub/\nsub/b.py 20\nsub/deep/\nsub/deep/笔记.txt 11"
    assert list_files(pattern="*.txt", recursive=True) == "a.txt 14\nsub/deep/笔记.txt 11"
    assert list_files(pattern="nothing") == "Nothing found."


def test_search_files_finds_lines_below_a_folder(root: Path):
    search = tools(root)["search_files"]
    assert search("two") == "a.txt:2: two\nsub/b.py:1: # two\nsub/deep/笔记.txt:1: 第二 two"
    assert search("two", "sub", "*.py") == "b.py:1: # two"
    assert search("KEY") == "Nothing found."


def test_match_in_a_long_line_is_shown_with_the_text_around_it(root: Path):
    (root / "long.txt").write_text("x" * 100_000 + "needle" + "y" * 100_000)
    found = tools(root)["search_files"]("needle")
    assert "needle" in found
    assert len(found) < 300


def test_write_file_creates_folders_and_replaces_only_on_request(root: Path):
    write = tools(root, write=True)["write_file"]
    assert write("new/folder/c.txt", "héllo") == "Wrote 6 bytes to new/folder/c.txt."
    assert (root / "new/folder/c.txt").read_text() == "héllo"
    with pytest.raises(ToolError, match="overwrite=true"):
        write("a.txt", "lost?")
    assert (root / "a.txt").read_text() == "one\ntwo\nthree\n"
    (root / "a.txt").chmod(0o640)
    write("a.txt", "replaced", overwrite=True)
    assert (root / "a.txt").read_text() == "replaced"
    assert stat.S_IMODE((root / "a.txt").stat().st_mode) == 0o640
    assert sorted(os.listdir(root)) == [".env", "a.txt", "new", "sub"]


def test_write_file_exists_only_with_write_true(root: Path):
    assert list(tools(root)) == ["read_file", "list_files", "search_files"]
    assert list(tools(root, write=True)) == ["read_file", "list_files", "search_files", "write_file"]


@pytest.mark.parametrize("bad", ["", "missing", "root/a.txt"])
def test_root_must_be_an_existing_folder(root: Path, bad: str):
    with pytest.raises(ValueError, match="folder"):
        file_tools(bad and root.parent / bad)
    with pytest.raises(TypeError):
        file_tools(None)  # type: ignore[arg-type]


OUTSIDE = [
    "../secret.txt",
    "sub/../../secret.txt",
    "sub/../a.txt",
    "..",
    "/etc/passwd",
    "//etc/passwd",
    "link.txt",
    "linked/secret.txt",
    "linked",
    "inner_link.txt",
    "self/a.txt",
    ".env",
    "./.env",
    "sub/.git/config",
    "a.txt\x00.py",
    "\x00",
    "a.txt\n",
    "~/secret.txt",
    "$HOME/x",
    "\ud800",
    "n" * 300,
    "n/" * 3000,
    "n/" * 100 + "x",
    "a.txt/b",
    "a.txt/",
    "sub",
    "",
    ".",
    "*.txt",
    "fifo",
    "socket",
]


def _traps(root: Path) -> None:
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "linked").symlink_to(root.parent)
    (root / "inner_link.txt").symlink_to("a.txt")
    (root / "self").symlink_to(".")
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize("path", OUTSIDE)
def test_only_files_inside_the_root_are_read(root: Path, path: str):
    _traps(root)
    with pytest.raises(ToolError) as caught:
        tools(root)["read_file"](path)
    assert str(root) not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", ["..", "../secret.txt", "sub/../../secret.txt", "sub/../a.txt", "../root/a.txt"])
def test_parent_folder_stays_unreachable_with_hidden_true(root: Path, path: str):
    bound = tools(root, hidden=True, write=True)
    for tool, arguments in (("read_file", ()), ("list_files", ()), ("write_file", ("x", True))):
        with pytest.raises(ToolError, match=r"contains '\.\.'"):
            bound[tool](path, *arguments)


@pytest.mark.parametrize("path", sorted({*OUTSIDE} - {"~/secret.txt", "$HOME/x", "*.txt"}))
def test_only_files_inside_the_root_are_written(root: Path, path: str):
    _traps(root)
    before = sorted(os.listdir(root.parent))
    with pytest.raises(ToolError) as caught:
        tools(root, write=True)["write_file"](path, "owned", overwrite=True)
    assert str(root) not in str(caught.value)
    assert sorted(os.listdir(root.parent)) == before
    assert (root.parent / "secret.txt").read_text() == SECRET
    assert (root / "a.txt").read_text() == "one\ntwo\nthree\n"
    assert not list(root.glob(".lmagent-*"))


def test_tilde_and_variables_are_not_expanded(root: Path):
    write = tools(root, write=True)["write_file"]
    for path in ("~/x", "$HOME/x", "*"):
        write(path, "literal")
        assert (root / path).read_text() == "literal"


@pytest.mark.parametrize("path", ["..", "/etc", "linked", "self", ".git", "a.txt", "sub/../.."])
def test_only_folders_inside_the_root_are_listed_and_searched(root: Path, path: str):
    _traps(root)
    for call in (lambda: tools(root)["list_files"](path), lambda: tools(root)["search_files"]("secret", path)):
        with pytest.raises(ToolError):
            call()


def test_links_and_special_files_are_listed_but_not_followed(root: Path):
    _traps(root)
    listed = tools(root)["list_files"](recursive=True)
    assert "linked (link, not followed)" in listed.splitlines()
    assert "fifo (not a regular file)" in listed.splitlines()
    assert "secret" not in listed
    assert tools(root)["search_files"]("secret outside") == "Nothing found."


def test_hidden_true_shows_names_with_a_leading_dot(root: Path):
    assert SECRET in tools(root, hidden=True)["read_file"](".env")
    assert ".env" in tools(root, hidden=True)["list_files"]()


def test_device_is_not_opened(root: Path, monkeypatch):
    opened: list[str] = []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *a, **k: (opened.append(str(path)), real_open(path, *a, **k))[1])
    with pytest.raises(ToolError, match="not a regular file"):
        tools("/dev")["read_file"]("null")
    assert opened == ["/dev"]


def test_fifo_in_place_of_a_file_does_not_block(root: Path, monkeypatch):
    real_stat = os.stat

    def swapping(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        status = real_stat(path, *args, **kwargs)
        if path == "a.txt":
            (root / "a.txt").unlink()
            os.mkfifo(root / "a.txt")
        return status

    monkeypatch.setattr(os, "stat", swapping)
    outcome: list[str] = []

    def read() -> None:
        try:
            tools(root)["read_file"]("a.txt")
        except ToolError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(2)
    assert outcome == ["'a.txt' is not a regular file."]


def _swap_after_opening(monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], None], before: bool) -> None:
    """Call `swap` once, directly before or after the component `name` is opened."""
    real_open, done = os.open, [False]

    def opening(path: Any, *args: Any, **kwargs: Any) -> int:
        if path != name or done[0]:
            return real_open(path, *args, **kwargs)
        done[0] = True
        if before:
            swap()
            return real_open(path, *args, **kwargs)
        descriptor = real_open(path, *args, **kwargs)
        swap()
        return descriptor

    monkeypatch.setattr(os, "open", opening)


@pytest.mark.parametrize("before", [True, False])
def test_folder_replaced_by_a_link_does_not_lead_outside(root: Path, monkeypatch, before: bool):
    evil = root.parent / "evil"
    evil.mkdir()
    (evil / "b.py").write_text(SECRET)

    def swap() -> None:
        (root / "sub").rename(root / "moved")
        (root / "sub").symlink_to(evil)

    _swap_after_opening(monkeypatch, "sub", swap, before)
    try:
        answer = tools(root, write=True)["read_file"]("sub/b.py")
    except ToolError as error:
        answer = str(error)
    assert SECRET not in answer
    assert ("zwei" in answer) is not before


def test_folder_replaced_during_a_write_does_not_lead_outside(root: Path, monkeypatch):
    evil = root.parent / "evil"
    evil.mkdir()

    def swap() -> None:
        (root / "sub").rename(root / "moved")
        (root / "sub").symlink_to(evil)

    _swap_after_opening(monkeypatch, "sub", swap, before=False)
    tools(root, write=True)["write_file"]("sub/new.txt", "x")
    assert os.listdir(evil) == []
    assert (root / "moved" / "new.txt").read_text() == "x"


@pytest.mark.parametrize("verb", ["list_files", "search_files"])
def test_folder_replaced_during_a_listing_does_not_lead_outside(root: Path, monkeypatch, verb: str):
    def swap() -> None:
        (root / "sub").rename(root.parent / "moved")
        (root / "sub").symlink_to(root.parent)

    _swap_after_opening(monkeypatch, "sub", swap, before=True)
    arguments: dict[str, Any] = {"recursive": True} if verb == "list_files" else {"text": "secret"}
    assert "secret" not in tools(root)[verb](**arguments)


def test_link_in_place_of_a_file_is_not_followed(root: Path, monkeypatch):
    def swap() -> None:
        (root / "a.txt").unlink()
        (root / "a.txt").symlink_to(root.parent / "secret.txt")

    _swap_after_opening(monkeypatch, "a.txt", swap, before=True)
    with pytest.raises(ToolError, match="symbolic links"):
        tools(root)["read_file"]("a.txt")

    (root / "a.txt").unlink()
    (root / "a.txt").write_text("again")
    real_replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *args, **kwargs: (swap(), real_replace(*args, **kwargs)))
    tools(root, write=True)["write_file"]("a.txt", "new", overwrite=True)
    assert (root.parent / "secret.txt").read_text() == SECRET
    assert (root / "a.txt").read_text() == "new"


def test_failed_write_keeps_the_old_file_and_removes_the_temporary_one(root: Path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolError, match="No space left"):
        tools(root, write=True)["write_file"]("a.txt", "new", overwrite=True)
    assert (root / "a.txt").read_text() == "one\ntwo\nthree\n"
    assert not list(root.glob(".lmagent-*"))


def test_files_larger_than_max_bytes_are_rejected(root: Path):
    bound = tools(root, write=True, max_bytes=10)
    with pytest.raises(ToolError, match="larger than the 10 bytes"):
        bound["read_file"]("a.txt")
    with pytest.raises(ToolError, match="at most 10"):
        bound["write_file"]("big.txt", "x" * 11)
    assert bound["search_files"]("two") == "Nothing found."


def test_endless_file_is_read_only_up_to_the_limit():
    with pytest.raises(ToolError, match="larger than the 0 bytes"):
        tools("/proc/self", max_bytes=0)["read_file"]("status")


def test_binary_file_is_a_tool_error(root: Path):
    (root / "image.png").write_bytes(b"\x89PNG\xff")
    (root / "zero.bin").write_bytes(b"a\x00b")
    (root / "bom.txt").write_bytes(b"\xef\xbb\xbfhi")
    for name in ("image.png", "zero.bin"):
        with pytest.raises(ToolError, match="not a UTF-8 text file"):
            tools(root)["read_file"](name)
    assert tools(root)["read_file"]("bom.txt") == "hi"


def test_control_characters_in_names_are_escaped(root: Path):
    (root / "x\nfake.txt 5").write_text("two")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_text("two")
    for answer in (tools(root)["list_files"](), tools(root)["search_files"]("two")):
        assert "\nfake" not in answer
        assert "x\\nfake.txt 5" in answer
        assert "\\udcff.txt" in answer


def test_listed_visited_and_matched_entries_are_limited(root: Path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LISTED", 2)
    monkeypatch.setattr(files, "MAX_MATCHES", 1)
    assert "more than 2 entries" in tools(root)["list_files"](recursive=True)
    assert "more than 1 lines" in tools(root)["search_files"]("two")
    monkeypatch.setattr(files, "MAX_SEARCHED_BYTES", 14)
    monkeypatch.setattr(files, "MAX_MATCHES", 100)
    assert "too much to search" in tools(root)["search_files"]("two")
    monkeypatch.setattr(files, "MAX_VISITED", 2)
    with pytest.raises(ToolError, match="more than 2 files"):
        tools(root)["list_files"](recursive=True)


@pytest.mark.parametrize("pattern", ["../*", "x" * 201])
def test_patterns_with_a_slash_or_too_long_are_rejected(root: Path, pattern: str):
    with pytest.raises(ToolError, match="matches names"):
        tools(root)["list_files"](pattern=pattern)


def test_all_descriptors_are_closed(root: Path):
    _traps(root)
    before = len(os.listdir("/proc/self/fd"))
    for path in ["a.txt", "sub/deep/笔记.txt", *OUTSIDE]:
        for tool, arguments in (("read_file", ()), ("list_files", ()), ("write_file", ("x",))):
            try:
                tools(root, write=True)[tool](path, *arguments)
            except ToolError:
                continue
    tools(root)["list_files"](recursive=True)
    tools(root)["search_files"]("two")
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.text(alphabet="ab./\\~$*\x00\n:éＡ\ud800", max_size=30))
def test_any_path_stays_inside_the_root(tmp_path_factory, text: str):
    base = tmp_path_factory.mktemp("any")
    (base / "root").mkdir()
    (base / "a").write_text(SECRET)
    bound = tools(base / "root", write=True)
    for call in (lambda: bound["read_file"](text), lambda: bound["write_file"](text, "x", True)):
        try:
            call()
        except ToolError:
            continue
    assert sorted(os.listdir(base)) == ["a", "root"]
    assert (base / "a").read_text() == SECRET


def test_files_of_max_bytes_can_be_written_whatever_the_usual_limit_of_arguments(root: Path):
    write = tools(root, write=True, max_bytes=3 * 1024 * 1024)["write_file"]
    arguments = json.dumps({"path": "big.txt", "content": '"line"\n' * 400_000})
    assert len(arguments) > 3_000_000
    write.call(arguments)
    assert (root / "big.txt").stat().st_size == 2_800_000
