"""The sandbox: what a hostile model tries, and what comes of it in every mode that works here.

The hostile model is Python code that stands where an artefact should, run by a worker that the tests bring with them:
it locks itself in exactly as the product's does, but then executes the artefact's bytes. What must happen is read
from the table of the room itself, so the table says what is so.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import sandbox, worker
from grit.bench.export import build, onnx, packing, quantise, words
from grit.bench.sandbox import Limits
from grit.bench.types import CouldNotMeasure, Dense, MalformedInput, Mean, Program, Rows, SandboxViolation, UsageError

LINUX = sys.platform == "linux"
SMALL = Limits(memory_bytes=512 << 20, cpu_s=2, wall_s=10.0)
ONNX = Limits(memory_bytes=1 << 30, cpu_s=20, wall_s=60.0)
ORDER = np.random.default_rng(0)

# What stands where worker.py should. It imports what attacks need, since nothing can be imported afterwards.
HOSTILE = """
import ctypes, errno, json, mmap, os, select, signal, socket, struct, subprocess, sys, threading, time
settings = json.loads(sys.argv[1])
sys.path += settings["paths"]
from grit.bench import worker

libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
b"".decode("ascii"), "".encode("idna")

class Table:  # as much of an array as the worker asks for
    def __init__(self, rows):
        self.shape = (len(rows), len(rows[0]))
        self.data = struct.pack(f"<{self.shape[0] * self.shape[1]}d", *[v for row in rows for v in row])
    def astype(self, kind):
        return self
    def tobytes(self):
        return self.data

def respond(artefact, texts):
    names = {**globals(), "texts": texts, "escaped": False, "rows": None}
    exec(artefact.decode(), names)
    return Table(names["rows"] or [[float(names["escaped"])]] * len(texts))

worker.serve(settings, lambda artefact: lambda question: respond(artefact, json.loads(question)))
"""


# --- surroundings -----------------------------------------------------------------------------------------


@pytest.fixture(params=sandbox.MODES)
def mode(request: pytest.FixtureRequest, need_tool: Callable[[str], str]) -> str:
    """Every mode that should work here."""
    return usable(request.param, need_tool)


@pytest.fixture(params=sandbox.MODES[:2])
def strong(request: pytest.FixtureRequest, need_tool: Callable[[str], str]) -> str:
    """Every mode with a filter of system calls."""
    return usable(request.param, need_tool)


def usable(mode: str, need_tool: Callable[[str], str]) -> str:
    if mode != "rlimits" and (not LINUX or platform.machine() not in worker.MACHINES):
        pytest.skip(f"{mode} is for Linux on {' and '.join(worker.MACHINES)}")
    if mode == "bubblewrap":
        need_tool("bwrap")
    return mode


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which even nobody may read and write, so that nothing but the sandbox is in the way."""
    made = Path(tempfile.mkdtemp(prefix="grit-test-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., np.ndarray]:
    """hostile(code, mode, ...) runs the code inside the sandbox and gives its logits."""

    def run(
        code: str, mode: str, texts: tuple[str, ...] = ("a",), limits: Limits = SMALL, **values: object
    ) -> np.ndarray:
        monkeypatch.setattr(sandbox, "WORKER", ("-c", HOSTILE))
        path = tmp_path / "hostile.py"
        path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()) + code)
        return sandbox.logits(path, texts, limits=limits, mode=mode).logits

    return run


def tried(run: Callable[[], np.ndarray]) -> tuple[bool, str]:
    """Whether an attempt worked, and what the parent said."""
    try:
        return bool(run()[0, 0]), ""
    except SandboxViolation as error:
        assert error.exit_code == 5
        return False, str(error)


def promised(attempt: str, mode: str) -> bool:
    """Whether the room's table says that an attempt is stopped in a mode."""
    found = re.search(rf"^ +{re.escape(attempt)} {{2,}}(\S+) +(\S+) +(\S.*)$", sandbox.__doc__ or "", re.MULTILINE)
    assert found, f"the table has no row {attempt!r}"
    entry = found.group(1 + sandbox.MODES.index(mode))
    assert entry in ("stopped", "-", "as root")
    return entry == "stopped" or (entry == "as root" and os.geteuid() == 0)


def processes(mark: str) -> list[int]:
    """Those whose command line holds ``mark``."""
    if not LINUX:
        shown = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
        return [int(line.split()[0]) for line in shown.splitlines() if mark in line]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


# --- attempts to escape, each in every mode -----------------------------------------------------------------
# Closing the log first frees a file descriptor, which is how a limit on open files is got round.

CONNECT = (
    "os.close(2); s = socket.socket(); s.settimeout(3); s.connect(('127.0.0.1', port)); s.sendall(b'x'); escaped = True"
)
LOOK_UP = (
    "os.close(2); s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'name?', ('127.0.0.1', port)); escaped = True"
)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_network(kind: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        if kind == "tcp":
            server.listen()
        port = server.getsockname()[1]
        worked, _ = tried(lambda: hostile(CONNECT if kind == "tcp" else LOOK_UP, mode, port=port))
        try:
            arrived = bool(server.accept() if kind == "tcp" else server.recv(10))
        except TimeoutError:
            arrived = False
    assert worked == arrived == (not promised("network: connect, look up a name", mode))


def test_name_service_of_the_system(strong: str, hostile: Callable[..., np.ndarray]) -> None:
    worked, _ = tried(lambda: hostile("socket.getaddrinfo('example.org', 80); escaped = True", strong))
    assert not worked


@pytest.mark.skipif(not LINUX, reason="abstract addresses are Linux's")
def test_socket_without_a_file(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        name = f"\0grit-test-{os.getpid()}"
        server.bind(name)
        server.listen()
        code = "os.close(2); s = socket.socket(socket.AF_UNIX); s.connect(name); escaped = True"
        worked, _ = tried(lambda: hostile(code, mode, name=name))
    assert worked == (not promised("network: connect, look up a name", mode))


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_writing_bytes(existing: bool, mode: str, folder: Path, hostile: Callable[..., np.ndarray]) -> None:
    path = folder / "file"
    if existing:
        path.write_bytes(b"as it was")
        path.chmod(0o666)
    code = "os.close(2); f = os.open(path, os.O_WRONLY | os.O_CREAT); escaped = os.write(f, b'mine') > 0"
    worked, said = tried(lambda: hostile(code, mode, path=str(path)))
    assert not worked and promised("write bytes into a file", mode)
    assert not path.exists() or b"mine" not in path.read_bytes()
    if mode == "rlimits":
        assert "wrote into a file" in said


@pytest.mark.parametrize(
    ("code", "proof"),
    [
        ("os.mkdir(path + '/made'); escaped = True", lambda folder: (folder / "made").is_dir()),
        ("os.truncate(path + '/full', 0); escaped = True", lambda folder: not (folder / "full").read_bytes()),
        ("os.rename(path + '/full', path + '/else'); escaped = True", lambda folder: (folder / "else").exists()),
        ("os.symlink('/', path + '/link'); escaped = True", lambda folder: (folder / "link").is_symlink()),
    ],
    ids=["mkdir", "truncate", "rename", "link"],
)
def test_changing_files(
    code: str, proof: Callable[[Path], bool], mode: str, folder: Path, hostile: Callable[..., np.ndarray]
) -> None:
    (folder / "full").write_bytes(b"as it was")
    (folder / "full").chmod(0o666)
    worked, _ = tried(lambda: hostile(code, mode, path=str(folder)))
    assert worked == proof(folder) == (not promised("make, rename or empty a file", mode))


READ = "os.close(2); f = os.open(path, os.O_RDONLY); escaped = bool(os.read(f, 100))"


@pytest.mark.parametrize("way", ["labels", "link", "home", "proc"])
def test_reading(
    way: str, mode: str, folder: Path, hostile: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "labels").write_text("1 0 1 1")
    (folder / "link").symlink_to("labels")
    monkeypatch.setenv("HOME", str(folder))
    path = {
        "labels": str(folder / "labels"),
        "link": str(folder / "link"),
        "home": os.path.expanduser("~/labels"),
        "proc": f"/proc/{os.getpid()}/cmdline",
    }[way]
    if way == "proc" and not LINUX:
        pytest.skip("only Linux has /proc")
    worked, _ = tried(lambda: hostile(READ, mode, path=path))
    assert worked == (not promised("read a file: labels, home, /proc, via a link", mode))


def test_reading_the_data_folder(strong: str, real_data: Path, hostile: Callable[..., np.ndarray]) -> None:
    code = "escaped = os.path.exists(path) or bool(os.listdir(path))"
    assert not tried(lambda: hostile(code, strong, path=str(real_data)))[0]


@pytest.mark.parametrize(
    "code",
    [
        "pid = os.fork(); pid or os._exit(0); os.waitpid(pid, 0); escaped = True",
        "subprocess.run([sys.executable, '-c', '']); escaped = True",
        "try: threading.Thread(target=print).start(); escaped = True\nexcept RuntimeError: pass",
    ],
    ids=["fork", "subprocess", "thread"],
)
def test_starting_processes(code: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    assert not tried(lambda: hostile(code, mode))[0]
    assert promised("start a process or a thread", mode)


def test_fork_bomb(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    code = "# fork-bomb-7531\nwhile True:\n try: os.fork()\n except OSError: pass"
    worked, said = tried(lambda: hostile(code, mode, limits=dataclasses.replace(SMALL, cpu_s=1)))
    assert not worked and said
    assert not processes(f'"parent": {os.getpid()}')


def test_becoming_another_program(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    answer = "".join(f"\\{byte:03o}" for byte in b"L" + struct.pack("<IId", 1, 1, 1.0))
    code = "os.close(2); os.execv('/bin/sh', ['sh', '-c', 'printf ' + chr(39) + answer + chr(39)])"
    worked, said = tried(lambda: hostile(code, mode, answer=answer))
    # Where nothing else stops it, the limit on processes may (EAGAIN): other sandboxes of the same user count, too.
    assert worked == (not promised("become another program", mode)) or f"Errno {errno.EAGAIN}" in said, said


def test_killing(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            worked, _ = tried(
                lambda: hostile("os.kill(victim, signal.SIGTERM); escaped = True", mode, victim=victim.pid)
            )
            time.sleep(0.05)
            died = victim.poll() is not None
        finally:
            victim.kill()
    assert worked == died == (not promised("send a signal to the parent or another", mode))


def test_killing_the_parent(strong: str, hostile: Callable[..., np.ndarray]) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        code = "os.kill(os.getppid(), signal.SIGUSR1); os.kill(parent, signal.SIGUSR1); escaped = True"
        worked, said = tried(lambda: hostile(code, strong, parent=os.getpid()))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not worked and not heard and "forbidden system call" in said


@pytest.mark.skipif(not LINUX, reason="macOS cannot limit memory: there it is watched")
@pytest.mark.parametrize(
    "code",
    [
        "hoard = b'x' * (1 << 30)",
        "hoard = []\nwhile True: hoard.append(b'x' * (1 << 20))",
        "hoard = mmap.mmap(-1, 1 << 30)",
    ],
    ids=["at once", "bit by bit", "shared"],
)
def test_memory_bomb(code: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    assert promised("take more memory than its share", mode)
    with pytest.raises(SandboxViolation, match=r"more memory than 536870912 bytes|system does not let it"):
        hostile(code + "\nescaped = True", mode)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("deep = lambda n: sorted([n], key=deep)\nsys.setrecursionlimit(1 << 30)\ndeep(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
    ],
    ids=["stack", "abort"],
)
def test_a_crash_is_a_broken_file(code: str, name: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    with pytest.raises(MalformedInput, match=f"died of {name}"):
        hostile(code, mode)


def test_memory_is_watched_from_outside(hostile: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no limit holds: here the worker is told of a larger one than the parent."""
    command = sandbox._command

    def generous(mode: str, limits: Limits, *rest: object) -> list[str]:
        return command(mode, dataclasses.replace(limits, memory_bytes=1 << 31), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sandbox, "_command", generous)
    with pytest.raises(SandboxViolation, match="more memory than 134217728 bytes"):
        hostile(
            "hoard = b'x' * (200 << 20); time.sleep(5)",
            "rlimits",
            limits=dataclasses.replace(SMALL, memory_bytes=128 << 20),
        )


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("while True: pass", Limits(512 << 20, 1, 120)),
        ("while True: pass", Limits(512 << 20, 20, 0.5)),
        ("time.sleep(60)", Limits(512 << 20, 20, 0.5)),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)", Limits(512 << 20, 20, 0.5)),
    ],
    ids=["cpu", "wall", "sleep", "sleep, deaf"],
)
def test_endless(code: str, limits: Limits, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    assert promised("compute or sleep for ever", mode)
    began = time.monotonic()
    with pytest.raises(SandboxViolation, match="processor time"):
        hostile(code, mode, limits=limits)
    assert time.monotonic() - began < 100  # wide: a second of the processor may take long on a busy machine
    assert not processes(f'"parent": {os.getpid()}')


def test_a_child_that_closes_its_mouth(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    began = time.monotonic()
    with pytest.raises(SandboxViolation, match="was stopped"):
        hostile("os.close(1); os.close(2); time.sleep(60)", mode, limits=Limits(512 << 20, 2, 0.5))
    assert time.monotonic() - began < 15


def test_endless_and_deaf(hostile: Callable[..., np.ndarray]) -> None:
    """The limit's first signal can be ignored, its second cannot."""
    with pytest.raises(SandboxViolation, match="it was killed: 1 s of processor time"):
        hostile(
            "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            "rlimits",
            limits=Limits(512 << 20, 1, 120),
        )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("while True: os.write(1, b'x' * 4096)", "no answer"),
        (
            "os.write(1, b'L' + struct.pack('<II', 1 << 31, 1 << 31))\nwhile True: os.write(1, b'x' * 4096)",
            "2147483648 texts",
        ),
        ("os.write(1, b'L' + struct.pack('<II', 1, 1) + b'x' * 8)\nwhile True: os.write(1, b'x' * 4096)", "wrote on"),
        ("os.write(1, b'E' + struct.pack('<I', 1 << 31))\nwhile True: os.write(1, b'x' * 4096)", "no answer"),
        ("while True: os.write(2, b'x' * 4096)", "to its log"),
        ("os.write(1, b'L' + struct.pack('<II', 1, 1)); os._exit(0)", "no answer"),
        ("os.write(1, b'E' + struct.pack('<I', 4) + b'null'); time.sleep(9)", "no answer"),
        ("os._exit(0)", "no answer"),
    ],
    ids=["junk", "rows", "after", "error", "log", "short", "strange error", "none"],
)
def test_wild_answers(code: str, says: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    assert promised("answer without end", mode)
    with pytest.raises(SandboxViolation, match=says):
        hostile(code, mode)


def test_an_error_cannot_speak_to_the_terminal(hostile: Callable[..., np.ndarray]) -> None:
    with pytest.raises(MalformedInput) as caught:
        hostile("raise ValueError('\\x1b[2Jgone\\n\\u202e' + 'x' * 5000)", "rlimits")
    assert str(caught.value).isprintable() and str(caught.value).isascii() and len(str(caught.value)) < 400


def test_environment(mode: str, hostile: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    assert promised("find its parent's environment in its own", mode)
    monkeypatch.setenv("GRIT_SECRET", "a token")
    ours = ["LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PWD"]
    ours += ["ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"]  # which the engine sets for itself
    assert not tried(lambda: hostile("escaped = bool(os.environ.keys() - set(ours))", mode, ours=ours))[0]


def test_nothing_is_inherited(mode: str, hostile: Callable[..., np.ndarray], folder: Path) -> None:
    (folder / "labels").write_text("1 0 1")
    with (folder / "labels").open() as file:
        os.set_inheritable(file.fileno(), True)
        code = "escaped = False\nfor n in range(3, 300):\n try: os.read(n, 1); escaped = True\n except OSError: pass"
        assert not tried(lambda: hostile(code, mode))[0]


OTHER_CALLS = {
    "nice": "os.nice(1); escaped = True",
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC); escaped = True",
    "inotify_init1": f"os.close(2); escaped = syscall({294 if platform.machine() == 'x86_64' else 26}, 0) >= 0",
}


@pytest.mark.skipif(not LINUX, reason="system calls of Linux")
@pytest.mark.parametrize("call", OTHER_CALLS)
def test_other_calls(call: str, mode: str, hostile: Callable[..., np.ndarray]) -> None:
    worked, said = tried(lambda: hostile(OTHER_CALLS[call], mode))
    assert worked == (not promised("any other system call", mode))
    assert worked or "forbidden system call" in said


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize(
    ("number", "arguments"),
    [(101, "0, 0, 0, 0"), (0x40000000 | 39, ""), (425, "1, 0"), (272, "0x10000000"), (310, "parent, 0, 0, 0, 0, 0")],
    ids=["ptrace", "x32 getpid", "io_uring_setup", "unshare", "process_vm_readv"],
)
def test_dangerous_calls(number: int, arguments: str, strong: str, hostile: Callable[..., np.ndarray]) -> None:
    code = f"syscall({number}, {arguments}); escaped = True" if arguments else f"syscall({number}); escaped = True"
    worked, said = tried(lambda: hostile(code, strong, parent=os.getpid()))
    assert not worked and "forbidden system call" in said


@pytest.mark.skipif(not LINUX, reason="capabilities and the like are Linux's")
def test_nobody_with_no_rights(mode: str, hostile: Callable[..., np.ndarray]) -> None:
    """Neither root's number, nor his rights, nor a way back to them: limits stay where they are."""
    code = "rows = [[os.getuid(), os.getgid()]]"
    if os.geteuid() == 0 or mode == "bubblewrap":
        assert hostile(code, mode).tolist() == [[worker.NOBODY, worker.NOBODY]]
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); escaped = True"
    with pytest.raises((SandboxViolation, MalformedInput)):
        hostile(code, mode)


# --- each layer alone -----------------------------------------------------------------------------------------

LOOK_AROUND = """
import json, os, socket, sys
def attempt(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__
paths = json.loads(sys.argv[2])
print(json.dumps({
    "seen": [path for path in paths if os.path.exists(path)],
    "root": sorted(os.listdir("/")),
    "embedded": attempt(lambda: os.listdir(sys.argv[3])),
    "processes": attempt(lambda: [name for name in os.listdir("/proc") if name.isdigit()]),
    "home": attempt(lambda: os.listdir(sys.argv[4])),
    "signal": attempt(lambda: os.kill(int(sys.argv[5]), 0)),
    "connect": attempt(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[6])), 2) and True),
    "write": [attempt(lambda: open(path + "/x", "w") and True) for path in ("/", os.path.dirname(os.__file__))],
    "user": os.getuid(),
    "interfaces": [name for _, name in socket.if_nameindex()],
}))
"""


def test_namespaces_alone(need_tool: Callable[[str], str], root: Path, tmp_path: Path) -> None:
    """Without filter and limits, which the worker brings: nothing is there to be reached."""
    bwrap = need_tool("bwrap")
    python = os.path.realpath(sys.executable)
    (tmp_path / "labels").write_text("1 0 1")
    hidden = [tmp_path / "labels", root / "README.md", root / "tests", root / "leaderboards", Path("/etc/passwd")]
    hidden += [Path("/usr/bin/env"), Path("/bin/sh"), Path("/tmp/grit"), Path("/dev/kmsg")]
    hidden += [Path(named)] if (named := os.environ["GRIT_DATA"]) else []
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = sandbox._bubblewrap(bwrap, python, sandbox._packages(False), sandbox.WORKER)
        engine = Path(sandbox.__file__).resolve().parent
        arguments = ["{}", json.dumps(list(map(str, hidden))), str(engine / "embedded"), str(Path.home())]
        arguments += [str(os.getpid()), str(server.getsockname()[1])]
        command += [python, "-I", "-S", "-B", "-c", LOOK_AROUND, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["seen"] == [] and seen["embedded"] == [] and seen["user"] == worker.NOBODY
    assert seen["processes"] == [] and seen["signal"] == "ProcessLookupError"
    assert seen["connect"] in ("ConnectionRefusedError", "OSError") and seen["interfaces"] in (["lo"], [])
    assert seen["write"] == ["OSError", "OSError"]  # read-only
    assert not {"bin", "boot", "opt", "var", "mnt", "dev"} & set(seen["root"])
    assert isinstance(seen["home"], str) or set(seen["home"]) <= {".pyenv", ".local", "miniconda3"}


def decide(code: list[worker.Instruction], arch: int, number: int, arguments: tuple[int, ...]) -> int:
    """What a filter answers: the kernel's machine, as far as the filter uses it."""
    data = struct.pack("<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, 0, *arguments)
    accumulator, place = 0, 0
    while True:
        kind, yes, no, constant = code[place]
        place += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif kind == 0x06:
            return constant
        else:
            true = accumulator == constant if kind == 0x15 else bool(accumulator & constant)
            place += yes if true else no


words64 = st.integers(0, (1 << 64) - 1)


@given(
    st.sampled_from(sorted(worker.MACHINES)),
    st.integers(0, 500) | st.integers(0, (1 << 32) - 1),
    st.tuples(*[words64 | st.sampled_from([0, 1, 2, 4, 7, 0o100, 0o1000, 42])] * 6),
    st.booleans(),
)
def test_the_filter_says_what_its_lists_say(
    machine: str, number: int, arguments: tuple[int, ...], foreign: bool
) -> None:
    which, arch = worker.MACHINES[machine]
    expected = worker.KILL
    if not foreign:
        if number in [numbers[which] for numbers in worker.ALLOWED.values()]:
            expected = worker.ALLOW
        elif number in [numbers[which] for numbers in worker.REFUSED.values()]:
            expected = worker.REFUSE
        elif number == worker.TGKILL[which] and arguments[0] & 0xFFFFFFFF == 42:
            expected = worker.ALLOW
        for numbers, argument, bits, otherwise in worker.BY_FLAGS.values():
            if number == numbers[which]:
                expected = worker.KILL if arguments[argument] & bits else otherwise
    assert decide(worker.program(machine, 42), 0x40000003 if foreign else arch, number, arguments) == expected


@pytest.mark.parametrize("machine", worker.MACHINES)
def test_every_number_is_decided_once(machine: str) -> None:
    which = worker.MACHINES[machine][0]
    lists = [*worker.ALLOWED.values(), *worker.REFUSED.values(), *(rule[0] for rule in worker.BY_FLAGS.values())]
    numbers = [pair[which] for pair in [*lists, worker.TGKILL] if pair[which] >= 0]
    assert len(numbers) == len(set(numbers))
    assert not {"openat2", "socket", "connect", "execve", "clone", "kill", "ptrace"} & set(worker.ALLOWED)


@pytest.mark.parametrize(
    ("which", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_numbers_are_the_kernels(which: int, header: str) -> None:
    if not Path(header).is_file():
        pytest.skip("the kernel's headers are not installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    found["newfstatat"] = found.get("newfstatat" if which == 0 else "fstatat", "")
    ours = {name: rule[0] for name, rule in worker.BY_FLAGS.items()}
    ours |= {**worker.ALLOWED, **worker.REFUSED, "tgkill": worker.TGKILL, "seccomp": worker._SECCOMP}
    for name, numbers in ours.items():
        if numbers[which] >= 0:
            assert found[name] == str(numbers[which]), name
        else:
            assert which == 1 and name in ("time", "stat", "lstat", "access", "readlink", "open")


# --- the product's own worker ---------------------------------------------------------------------------------

TEXTS = ("a good day", "bad", "", "day day good", "\ud800 na\u00efve \U0001f600", "good " * 50)
VOCABULARY = ("", "a", "good", "bad", "day")


def program(scale: float = 1.0) -> Program:
    rng = np.random.default_rng(5)
    table, weight = ((scale * rng.standard_normal(shape)).astype(np.float32) for shape in ((5, 4), (3, 4)))
    return Program(Rows(table), Mean(), Dense(weight, np.zeros(3, np.float32)), VOCABULARY, 24)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployed program file."""
    path = tmp_path_factory.mktemp("fixed") / "program.safetensors"
    path.write_bytes(packing.pack(quantise.quantise(program(), TEXTS[:3])))
    return path


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an ONNX folder."""
    path = tmp_path_factory.mktemp("graph")
    for name, data in onnx.files(quantise.quantise(program(), TEXTS[:3])).items():
        (path / name).write_bytes(data)
    return path


def test_same_bits_inside(mode: str, fixed: Path) -> None:
    answer = sandbox.logits(fixed, TEXTS, mode=mode)
    assert np.array_equal(answer.logits, words.answer(build.load(fixed), TEXTS))
    assert answer.logits.dtype == np.float64 and answer.mode == mode and answer.weaker == ""
    assert 0 < answer.start_s < 30 and 0 < answer.seconds < 30
    assert answer.peak_bytes is None or 5 << 20 < answer.peak_bytes < 200 << 20


def test_onnx_inside(mode: str, graph: Path, tmp_path: Path) -> None:
    expected = words.answer(build.load(graph), TEXTS)
    assert np.array_equal(sandbox.logits(graph, TEXTS, mode=mode, limits=ONNX).logits, expected)
    container = tmp_path / "container"
    container.write_bytes(packing.bundle(onnx.read(graph)))
    assert np.array_equal(sandbox.logits(container, TEXTS, mode="rlimits", limits=ONNX).logits, expected)


def test_a_graph_answers_many_questions_inside(mode: str, graph: Path) -> None:
    """As the artefact that attacks ask does, bit for bit, whatever the batch."""
    contents = onnx.read(graph)
    with sandbox.session(contents, limits=ONNX, least=mode) as session:
        artefact = onnx.OnnxArtefact(contents, session=session)
        for texts in (TEXTS, TEXTS[:2], TEXTS[2:]):
            assert np.array_equal(words.answer(artefact, texts), words.answer(build.load(graph), texts))
        assert session.mode in sandbox.MODES[: 1 + sandbox.MODES.index(mode)]
        assert session.failure is None


def test_a_graph_that_misbehaves_is_not_asked_again(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = HOSTILE.replace("json.loads(question)", "[]").replace("exec(artefact.decode(), names)", "time.sleep(60)")
    monkeypatch.setattr(sandbox, "WORKER", ("-c", asleep))
    contents = onnx.read(graph)
    with sandbox.session(contents, limits=Limits(1 << 30, 20, 0.5), least="rlimits") as session:
        artefact = onnx.OnnxArtefact(contents, session=session)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(SandboxViolation, match="longer than"):
                words.answer(artefact, TEXTS)
        assert time.monotonic() - began < 5
        assert session.failure is not None


def test_no_texts(fixed: Path) -> None:
    assert sandbox.logits(fixed, ()).logits.shape == (0, 3)


def test_small_limits_suffice(fixed: Path) -> None:
    assert sandbox.logits(fixed, TEXTS, limits=SMALL).logits.shape == (len(TEXTS), 3)


def test_start_up_imports_little() -> None:
    code = (
        "import json, sys; sys.path += json.loads(sys.argv[1]); from grit.bench import worker;"
        "worker.responder(onnx=False); print(json.dumps(sorted(sys.modules)))"
    )
    paths = json.dumps(list(map(str, sandbox._packages(False))))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, paths], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "numpy" in loaded and not {"torch", "onnx", "onnxruntime", "pandas", "nltk", "msgspec", "rich"} & loaded


def test_order_is_shuffled_and_restored(hostile: Callable[..., np.ndarray]) -> None:
    texts = tuple(map(str, range(50)))
    answer = hostile("rows = [[float(text), place] for place, text in enumerate(texts)]", "rlimits", texts)
    assert answer[:, 0].tolist() == list(range(50))
    assert sorted(answer[:, 1]) == list(range(50)) and answer[:, 1].tolist() != list(range(50))


def test_the_child_is_given_texts_and_nothing_else(hostile: Callable[..., np.ndarray]) -> None:
    known = ["cpu_s", "memory_bytes", "mode", "onnx", "parent", "paths"]
    code = "rows = [[sorted(settings) == known, sorted(texts) == ['a', 'b']]] * 2"
    assert hostile(code, "rlimits", ("a", "b"), known=known).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(value: float, hostile: Callable[..., np.ndarray]) -> None:
    with pytest.raises(MalformedInput, match="not finite"):
        hostile(f"rows = [[1.0, float('{value}')]]", "rlimits")


@pytest.mark.parametrize("classes", [0, 1025])
def test_number_of_classes(classes: int, hostile: Callable[..., np.ndarray]) -> None:
    with pytest.raises(MalformedInput, match=f"{classes} classes"):
        hostile(f"rows = [[0.0] * {classes}]", "rlimits")


def test_an_answer_for_other_texts(hostile: Callable[..., np.ndarray]) -> None:
    with pytest.raises(SandboxViolation, match="answered for 3 texts, not 2"):
        hostile("rows = [[0.0]] * 3", "rlimits", ("a", "b"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"junk" * 100,
        b"\x80\x04cos\nsystem\n",
        (1 << 62).to_bytes(8, "little") + b"{}",
        b"PK\x03\x04" * 9,
    ],
    ids=["empty", "short", "junk", "pickle", "oversize header", "zip"],
)
def test_what_is_no_artefact(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(MalformedInput, match="not a program file"):
        sandbox.logits(tmp_path / "file", TEXTS)


def test_a_container_that_hides_what_it_is(graph: Path, tmp_path: Path) -> None:
    """It is imported for as a program, so it is read as one."""
    data = packing.bundle(onnx.read(graph))
    size = int.from_bytes(data[:8], "little")
    header = b" " * 5000 + data[8 : 8 + size]
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    assert packing.is_bundle((tmp_path / "file").read_bytes())
    with pytest.raises(MalformedInput, match="holds no gritbench program"):
        sandbox.logits(tmp_path / "file", TEXTS)


def test_links_and_pipes_are_not_read(fixed: Path, graph: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(fixed)
    (tmp_path / "folder").symlink_to(graph)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").symlink_to(graph / "model.onnx")
    for name in ("link", "folder", "onnx"):
        with pytest.raises(MalformedInput, match="is a link"):
            sandbox.logits(tmp_path / name, TEXTS)
    with pytest.raises(MalformedInput, match="no plain file"):
        sandbox.logits(tmp_path / "pipe", TEXTS)
    with pytest.raises(MalformedInput, match="No such file"):
        sandbox.logits(tmp_path / "nothing", TEXTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MalformedInput, match=r"no model\.onnx"):
        sandbox.logits(tmp_path / "empty", TEXTS, limits=ONNX)


def test_a_graph_that_asks_for_all_memory(mode: str, graph: Path, tmp_path: Path) -> None:
    """A graph may be a bomb in a few bytes; onnxruntime's own error becomes the right one."""
    from onnx import ModelProto, helper, numpy_helper

    bomb = ModelProto.FromString((graph / "model.onnx").read_bytes())
    bomb.graph.initializer.append(numpy_helper.from_array(np.array([1 << 17, 1 << 17]), "huge"))
    bomb.graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "both"))
    last = bomb.graph.node[-1].output
    name = next(k for k, output in enumerate(last) if output == "logits")
    last[name] = "harmless"
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], axes=[0, 1], keepdims=0),
        helper.make_node("Add", ["same", "zero"], ["logits"]),
        helper.make_node("Cast", ["harmless"], ["same"], to=1),
    ]
    bomb.graph.node.extend([nodes[0], nodes[1], nodes[3], nodes[2]])
    bomb.graph.output[0].type.tensor_type.elem_type = 1
    shutil.copytree(graph, tmp_path / "bomb")
    (tmp_path / "bomb" / "model.onnx").write_bytes(bomb.SerializeToString())
    with pytest.raises(SandboxViolation, match="more memory"):
        sandbox.logits(tmp_path / "bomb", TEXTS, mode=mode, limits=ONNX)


def test_memory_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("ps is not installed")
    monkeypatch.setattr(sandbox, "sys", SimpleNamespace(platform="darwin"))
    assert 5 << 20 < (sandbox._resident_bytes(os.getpid()) or 0) < 1 << 40
    assert sandbox._resident_bytes(1 << 30) is None


# --- choosing a mode ------------------------------------------------------------------------------------------


def test_the_strongest_that_works_is_taken(fixed: Path) -> None:
    found = sandbox.unavailable()
    assert list(found) == list(sandbox.MODES) and found["rlimits"] == ""
    strongest = next(mode for mode, reason in found.items() if not reason)
    answer = sandbox.logits(fixed, TEXTS)
    assert answer.mode == strongest and (answer.weaker == "") == (strongest == "bubblewrap")


@pytest.mark.skipif(not LINUX, reason="elsewhere there is one mode only")
def test_without_bubblewrap_the_answer_says_so(fixed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = sandbox.logits(fixed, TEXTS)
    assert answer.mode == "seccomp" and "bwrap is not installed" in answer.weaker
    with pytest.raises(CouldNotMeasure, match="bwrap is not installed"):
        sandbox.logits(fixed, TEXTS, mode="bubblewrap")


@pytest.mark.skipif(not LINUX, reason="elsewhere there is one mode only")
def test_a_kernel_without_user_namespaces(fixed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer = sandbox.logits(fixed, TEXTS)
    assert answer.mode == "seccomp" and "setting up uid map: Permission denied" in answer.weaker
    with pytest.raises(CouldNotMeasure, match="uid map"):
        sandbox.logits(fixed, TEXTS, mode="bubblewrap")


def test_a_worker_that_cannot_lock_itself_in(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is handed to it, in any mode."""
    broken = HOSTILE.replace("worker.serve", "worker.confine = lambda s: 1 / 0\nworker.serve")
    monkeypatch.setattr(sandbox, "WORKER", ("-c", broken))
    with pytest.raises(CouldNotMeasure, match=r"(?s)rlimits.*ZeroDivisionError"):
        sandbox.logits(fixed, TEXTS)
    refused = HOSTILE.replace(
        "worker.serve", "def no(s): raise OSError(1, 'not here')\nworker.confine = no\nworker.serve"
    )
    monkeypatch.setattr(sandbox, "WORKER", ("-c", refused))
    with pytest.raises(CouldNotMeasure, match="not here"):
        sandbox.logits(fixed, TEXTS, mode="rlimits")


def test_a_worker_that_never_is_ready(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WORKER", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(sandbox, "START_S", 0.3)
    with pytest.raises(CouldNotMeasure, match="not ready after"):
        sandbox.logits(fixed, TEXTS, mode="rlimits")


def test_too_little_memory_to_start(fixed: Path) -> None:
    with pytest.raises((CouldNotMeasure, SandboxViolation)):
        sandbox.logits(fixed, TEXTS, limits=Limits(memory_bytes=1 << 20), mode="rlimits")


@pytest.mark.skipif(not LINUX, reason="elsewhere there is one mode only")
def test_nothing_weaker_than_the_least_is_tried(fixed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CouldNotMeasure, match=r"no sandbox \(bubblewrap: bwrap is not installed"):
        sandbox.logits(fixed, TEXTS, least="bubblewrap")
    assert sandbox.logits(fixed, TEXTS, least="seccomp").mode == "seccomp"
    with pytest.raises(UsageError, match="'docker'"):
        sandbox.logits(fixed, TEXTS, least="docker")


def test_unknown_mode(fixed: Path) -> None:
    with pytest.raises(UsageError, match="'docker': modes are bubblewrap, seccomp, rlimits"):
        sandbox.logits(fixed, TEXTS, mode="docker")


# --- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="only Linux ends a child with its parent")
def test_the_child_dies_with_its_parent(mode: str, tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text("time.sleep(60)")
    mark = f"mark-{os.getpid()}-{mode}"
    code = (
        "import sys; from pathlib import Path; from grit.bench import sandbox;"
        "sandbox.WORKER = ('-c', sys.argv[1]); sandbox.logits(Path(sys.argv[2]), ['a'], mode=sys.argv[3])"
    )
    hostile = HOSTILE + f"# {mark}"
    command = [sys.executable, "-c", code, hostile, str(tmp_path / "sleep.py"), mode]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}) as parent:
        assert eventually(lambda: len(processes(mark)) > 1)
        parent.kill()
    assert eventually(lambda: not processes(mark))


def test_nothing_is_left(
    mode: str, hostile: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir(mode=0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    threads, files = threading.active_count(), len(os.listdir("/dev/fd"))
    for code in ("escaped = True", "os._exit(1)", "time.sleep(9)"):
        tried(lambda code=code: hostile(code, mode, limits=Limits(512 << 20, 2, 0.3)))  # type: ignore[misc]
        assert not list((tmp_path / "temporary").iterdir())
    assert not processes(f'"parent": {os.getpid()}')
    assert threading.active_count() == threads and len(os.listdir("/dev/fd")) == files


def test_a_caller_that_is_interrupted(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(child: object, data: bytes, texts: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox._Child, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sandbox.logits(fixed, TEXTS, mode="rlimits")
    assert not processes(f'"parent": {os.getpid()}')


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_onnxruntime_starts_no_thread_to_report_from() -> None:
    """One that uploads what was run begins with the library's import, and needs more of them later."""
    program = "import grit.bench, onnxruntime, os; print(len(os.listdir('/proc/self/task')))"
    alone = {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}}
    done = subprocess.run([sys.executable, "-c", program], env=alone, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
