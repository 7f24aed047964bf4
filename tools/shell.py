"""Run named programs for a model, each time after an approval, and without a shell.

`run_program(programs=["wc", "sort"], root="data", approve=ask)` starts a program with a list of arguments: nothing is
split, expanded, piped or substituted. Interpreters and programs that start other programs are rejected. The model
cannot pass options. The environment contains no keys. Time and output are limited; at the end of the call, the whole
process group of the program is killed.

This is not a sandbox: an allowed program can read and write the same files as this process, and a program that leaves
its process group outlives the call. For isolation, run the whole agent in a container or as another user.
"""

from __future__ import annotations

import inspect
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from lmagent import ToolError, function

if TYPE_CHECKING:
    from lmagent import Tool

__all__ = ["FACTORIES", "run_program"]

FACTORIES = {"run_program": 'run_program(programs=["wc", "sort"], root="some/folder", approve=ask_the_user)'}
"""How to create the tool of this module: it needs programs, a folder and an approver."""

MAX_ARGUMENTS = 64
MAX_ARGUMENT = 4096
_TICK_S = 0.02

Approve = Callable[[Sequence[str]], bool]


def run_program(
    *,
    programs: Collection[str] | Mapping[str, Sequence[str]],
    root: str | os.PathLike[str],
    approve: Approve,
    timeout: float = 30.0,
    max_output: int = 64 * 1024,
    env: Mapping[str, str] | None = None,
    name: str = "run_program",
) -> Tool[..., str]:
    """Return a tool that runs one of the named programs in a folder, after `approve` has returned True.

    Args:
        programs: Names or paths of programs, or a dict from names for the model to fixed beginnings of commands, such
            as `{"history": ["git", "log", "--oneline"]}`. The programs are looked up once, now.
        root: The folder to run in. Arguments that are absolute paths or contain `..` are rejected.
        approve: Called with the whole command before each run; only `True` lets it run.
        timeout: Seconds until the program is killed.
        max_output: Bytes of output after which the program is killed.
        env: Variables to add to the clean environment (`PATH`, `LANG`).
        name: Name of the tool.

    Raises:
        ValueError: A program is not found, is an interpreter or lies below `root`, or `root` is not a folder.
        TypeError: `approve` is not a sync function.
    """
    if os.name != "posix":
        raise NotImplementedError("run_program needs process groups, which only Linux, macOS and BSD have.")
    if not callable(approve) or inspect.iscoroutinefunction(approve):
        raise TypeError(
            "run_program needs approve=, a sync function that gets the command as a list and returns True or False."
        )
    if isinstance(programs, str):
        raise TypeError("run_program: programs= must be a list of names, not a string.")
    if not programs:
        raise ValueError("run_program needs programs=[...]: nothing is allowed by default.")
    folder = os.path.realpath(root)
    if not os.fspath(root) or not os.path.isdir(folder):
        raise ValueError(f"run_program: root {os.fspath(root)!r} is not a folder.")
    given: Mapping[str, Sequence[str]]
    if isinstance(programs, Mapping):
        given = cast("Mapping[str, Sequence[str]]", programs)
    else:
        given = {os.path.basename(path): [path] for path in programs}
    runner = _Runner(
        commands={label: (_located(command, folder), *command[1:]) for label, command in given.items()},
        root=folder,
        approve=approve,
        timeout=timeout,
        max_output=max_output,
        environment={"PATH": os.defpath, "LANG": "C.UTF-8", **(env or {})},
    )

    def run(program: str, arguments: list[str]) -> str:
        return runner.run(program, arguments)

    run.__doc__ = f"""Run a program and return its exit status and output. No shell: no pipes, wildcards or options.

    Args:
        program: One of {", ".join(given)}.
        arguments: Such as names of files; they may not begin with a dash.
    """
    # The program's timeout comes first: its error has the output so far.
    effects = ("reads", "writes", "network", "irreversible")
    # `approve` decides on each command, so the agent's approver need not.
    return function(run, name=name, effects=effects, requires_approval=False, timeout=timeout + 5)


_STARTERS = frozenset(
    """
    sh bash dash ash zsh fish ksh mksh csh tcsh rbash pwsh powershell cmd
    python pypy ipython perl ruby irb node nodejs deno bun php lua luajit
    tclsh wish expect awk gawk mawk nawk sed gsed java jshell groovy scala
    r rscript julia guile ghci runghc ocaml erl elixir iex swift go osascript
    sqlite psql mysql gdb lldb m4 bc dc ed ex vi vim nvim emacs nano
    make gmake cmake ninja just npm npx yarn pnpm pip pipx uv uvx cargo
    busybox toybox env xargs parallel find fd nice nohup timeout time stdbuf
    setsid setpriv unshare nsenter chroot ionice taskset flock watch strace ltrace
    setarch i386 linux32 linux64 x86_64 chrt prlimit ld.so start-stop-daemon run-parts dbus-run-session
    script screen tmux sudo su doas pkexec runuser systemd-run at batch crontab
    ssh scp sftp rsync docker podman kubectl less more man nc ncat socat
    """.split()
)
"""Programs that run code from an argument, a file or standard input, that start a program named by an argument, or that
show their output through such a program."""
_VERSION = re.compile(r"[-.]?\d.*")


def _located(command: Sequence[str], root: str) -> str:
    """Return the absolute path of a program; reject programs that could run code written by the model."""
    if isinstance(command, str) or not command or not command[0]:
        raise ValueError(f"run_program: {command!r} is not a command; write a list such as ['git', 'log'].")
    path = shutil.which(command[0])
    if not path:
        raise ValueError(f"run_program: program {command[0]!r} is not found.")
    path = os.path.abspath(path)
    for candidate in (path, os.path.realpath(path)):
        name = os.path.basename(candidate).lower()
        # `/bin/wc` is a link to busybox on Alpine; called by that name, busybox acts only as wc.
        multicall = candidate != path and name in ("busybox", "toybox")
        if not multicall and _STARTERS & {name, _VERSION.sub("", name)}:
            raise ValueError(f"run_program: {command[0]!r} can run any other program, so it cannot be allowed.")
        if os.path.commonpath((candidate, root)) == root:
            raise ValueError(f"run_program: {command[0]!r} lies below the root, where a model could replace it.")
    return path


@dataclass(frozen=True, slots=True)
class _Runner:
    commands: Mapping[str, tuple[str, ...]]
    root: str
    approve: Approve
    timeout: float
    max_output: int
    environment: Mapping[str, str]

    def run(self, program: str, arguments: Sequence[str]) -> str:
        if program not in self.commands:
            raise ToolError(f"{program[:80]!r} is not allowed. Allowed are: {', '.join(self.commands)}.")
        _check_arguments(arguments)
        command = (*self.commands[program], *arguments)
        if not self._approved(command):
            raise ToolError(f"Running {program} was not approved.")
        ending, status, output = _run(command, self.root, self.environment, self.timeout, self.max_output)
        text = output.decode("utf-8", "replace")
        if ending == "time":
            raise ToolError(f"{program} did not finish within {self.timeout:g} seconds and was killed. Output:\n{text}")
        if ending == "output":
            return f"killed after {self.max_output} bytes of output\n{text}"
        return f"{'exit status' if status >= 0 else 'killed by signal'} {abs(status)}\n{text}"

    def _approved(self, command: tuple[str, ...]) -> bool:
        try:
            # Not `bool(...)`: a coroutine, the text "no" and other true objects do not approve.
            return self.approve(command) is True
        except Exception as error:
            raise ToolError("The command was not approved: the approval function failed.") from error


def _check_arguments(arguments: Sequence[str]) -> None:
    if len(arguments) > MAX_ARGUMENTS or any(len(argument) > MAX_ARGUMENT for argument in arguments):
        raise ToolError(f"At most {MAX_ARGUMENTS} arguments of {MAX_ARGUMENT} characters are allowed.")
    for argument in arguments:
        if argument.startswith("-"):
            raise ToolError(f"{argument[:80]!r} begins with a dash; options are not allowed.")
        if not argument.isprintable():
            raise ToolError("Arguments must not contain control characters.")
        # Also after `=`, as in `if=/etc/passwd`.
        for value in (argument, *argument.split("=")):
            if value.startswith(("/", "~")) or ".." in value.split("/"):
                raise ToolError(f"{argument[:80]!r} leads outside the folder; give relative paths without '..'.")


def _run(
    command: Sequence[str], root: str, environment: Mapping[str, str], timeout: float, max_output: int
) -> tuple[Literal["exit", "time", "output"], int, bytes]:
    """Run until the exit, the timeout or the output limit, then kill the whole process group."""
    end = time.monotonic() + timeout
    try:
        process = subprocess.Popen(  # noqa: S603 - a list; the program is allowed by the user and the command is approved
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ToolError(f"The program could not be started: {type(error).__name__}.") from error
    output = bytearray()
    ending: Literal["exit", "time", "output"] | None = None
    assert process.stdout
    with process, selectors.DefaultSelector() as selector:
        try:
            os.set_blocking(process.stdout.fileno(), False)
            selector.register(process.stdout, selectors.EVENT_READ)
            while ending is None:
                # Check for the exit before reading, so that the last output is read. A child that keeps the pipe open
                # does not delay the result.
                exited = _has_exited(process.pid)
                open_ = _drain(process, selector, output, max_output, 0 if exited else _TICK_S)
                if len(output) > max_output:
                    ending = "output"
                elif exited:
                    ending = "exit"
                elif time.monotonic() >= end:
                    ending = "time"
                elif not open_:
                    time.sleep(_TICK_S)
        finally:
            # Before the process is reaped: until then, no other process group can have its number.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return ending, process.returncode, bytes(output[:max_output])


def _has_exited(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # the host program ignores SIGCHLD, so the kernel has reaped it
        return True


def _drain(
    process: subprocess.Popen[bytes], selector: selectors.BaseSelector, output: bytearray, limit: int, wait: float
) -> bool:
    """Read the available output, up to just over `limit`; return whether the pipe is still open."""
    assert process.stdout
    descriptor = process.stdout.fileno()
    while selector.get_map() and selector.select(wait):
        try:
            data = os.read(descriptor, 64 * 1024)
        except BlockingIOError:
            return True
        if not data:
            selector.unregister(process.stdout)
            return False
        output += data
        if len(output) > limit:
            return True
        wait = 0
    return bool(selector.get_map())
