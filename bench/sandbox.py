"""A stranger's model answers from a process of its own, in which it can do no harm.

:func:`logits` starts :mod:`grit.bench.worker`, hands it an artefact's bytes and the texts, and believes nothing that
comes back: the answer's size is known before it is read, its shape and its numbers are checked. The child sees texts
in a shuffled order and nothing else: no ids, no labels, no file names, no folder, an empty environment. It locks itself
in before the artefact's first byte reaches it, so a mode is chosen before anyone could have a say in it.

Three modes, from strong to weak; each has all that the next one has.

    bubblewrap   namespaces without network, other processes or any file but the interpreter and its packages, these
                 read-only; needs bwrap and a kernel that grants user namespaces
    seccomp      only the system calls of arithmetic on what is already open; Linux on x86-64 and AArch64
    rlimits      limits on memory, time, processes, open files and file sizes, everywhere

What happens to code that has taken over the child entirely, and tries it (the tests do):

    attempt                                        bubblewrap  seccomp  rlimits
    network: connect, look up a name               stopped     stopped  -
    write bytes into a file                        stopped     stopped  stopped
    make, rename or empty a file                   stopped     stopped  -
    read a file: labels, home, /proc, via a link   stopped     stopped  -
    start a process or a thread                    stopped     stopped  stopped
    become another program                         stopped     stopped  -
    send a signal to the parent or another         stopped     stopped  as root
    take more memory than its share                stopped     stopped  stopped
    compute or sleep for ever                      stopped     stopped  stopped
    answer without end                             stopped     stopped  stopped
    find its parent's environment in its own       stopped     stopped  stopped
    any other system call                          stopped     stopped  -

"-" is not stopped in general, though a limit may be in the way of the first try. "as root": root makes the child
nobody, who may signal nobody else and reads only what everybody may read. In mode bubblewrap the namespaces and the
filter each stop what they can on their own, so a hole in one is not a hole in both. On macOS memory is not limited but
watched, every :data:`WATCH_S`. An answer says its mode, and why it is no stronger one; what it must be at least is the
caller's to say (``grit verify --sandbox MODE``), and then nothing weaker is tried.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import selectors
import shutil
import signal
import stat
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grit.bench.export import packing
from grit.bench.types import CouldNotMeasure, GritError, MalformedInput, SandboxViolation, UsageError

MODES = ("bubblewrap", "seccomp", "rlimits")
LARGEST_CLASSES = 1024
LARGEST_LOG_BYTES = 1 << 20  # what the child may write to its standard error
START_S = 60.0  # for imports, on a busy machine
END_S = 10.0  # for a child that has answered, or was killed
WATCH_S = 0.1
WORKER = (str(Path(__file__).resolve().with_name("worker.py")),)
FILES = ("model.onnx", "tokenizer.json", "vocabulary.txt")  # of an ONNX folder
# One thread: the limits allow no other, and sums in the order of one thread are the same everywhere.
_SAID = ("unconfined", "memory", "refused", "malformed", "crashed")  # kinds of errors that the worker reports
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"} | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class Limits:
    """What a child may use, its own start included."""

    memory_bytes: int = 2 << 30  # address space: what is reserved counts, about 0.2 GB of it before the model
    cpu_s: int = 120
    wall_s: float = 300.0  # from the moment it is ready


@dataclass(frozen=True)
class Answer:
    """What came back, and from where."""

    logits: np.ndarray  # float64 [texts classes], finite, in the order of the texts
    mode: str  # of MODES
    weaker: str  # why no stronger mode was taken; "" for the strongest, or where this mode was asked for
    start_s: float  # until the child was ready
    seconds: float  # from there to the answer
    peak_bytes: int | None  # resident memory; None where the system does not tell


def logits(
    artefact_path: Path,
    texts: Sequence[str],
    *,
    limits: Limits = Limits(),  # frozen
    mode: str | None = None,
    least: str = MODES[-1],
    seed: int = 0,
) -> Answer:
    """The logits of an artefact, computed where it can do no harm.

    ``artefact_path``: a program file, a container of files, or an ONNX folder. ``mode``: one of MODES; None is the
    strongest that works here, and at least ``least``. ``seed`` decides the order in which the child sees the texts.

    Raises SandboxViolation for a model that tried what it may not or used more than its limits, MalformedInput for
    one that cannot be read, fails, or answers with numbers that are none, CouldNotMeasure where the mode does not work.
    """
    data, onnx = _read_artefact(artefact_path)
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled, answer = [texts[k] for k in order], np.empty((0, 0))
    with _start(_chosen(mode, least), limits, WORKER, onnx) as child:
        child.give(data)
        answer = child.ask(json.dumps(shuffled).encode(), len(shuffled))
        child.dismiss()
    if not np.isfinite(answer).all():
        raise MalformedInput(f"{artefact_path.name} answers with logits that are not finite: train and export it again")
    restored = np.empty_like(answer)
    restored[order] = answer
    return Answer(restored, child.mode, child.weaker, child.start_s, child.seconds, child.peak_bytes)


@contextmanager
def session(graph: Mapping[str, bytes], *, limits: Limits, least: str = MODES[-1]) -> Iterator[Session]:
    """The graph of an ONNX folder, name -> bytes, at work where it can do no harm, for as long as it is asked.

    Raises as :func:`logits` does, here and at each question; ``limits.wall_s`` is for one question.
    """
    with _start(_chosen(None, least), limits, WORKER, True) as child:
        child.give(packing.bundle(graph))
        yield Session(child, graph["model.onnx"])


class Session:
    """What :class:`grit.bench.export.onnx.OnnxArtefact` needs of onnxruntime, in a child."""

    def __init__(self, child: _Child, graph: bytes) -> None:
        self._child = child
        self._graph = graph
        self.failure: GritError | None = None  # the first: nothing is asked after it

    @property
    def mode(self) -> str:
        return self._child.mode

    @property
    def weaker(self) -> str:
        return self._child.weaker

    def get_inputs(self) -> list[Any]:
        """Name and type of what the graph reads, as the graph says it."""
        from onnx import ModelProto, TensorProto

        class Input(NamedTuple):
            name: str
            type: str

        read = ModelProto.FromString(self._graph).graph.input
        kinds = {TensorProto.INT32: "tensor(int32)", TensorProto.INT64: "tensor(int64)"}
        return [Input(value.name, kinds.get(value.type.tensor_type.elem_type, "")) for value in read]

    def run(self, outputs: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        about = {name: [array.dtype.str, list(array.shape)] for name, array in feed.items()}
        question = b"".join([json.dumps(about).encode(), b"\n", *(array.tobytes() for array in feed.values())])
        if self.failure is None:
            try:
                return [self._child.ask(question, len(feed["lengths"]))]
            except GritError as error:
                self.failure = error
        raise self.failure


def unavailable() -> dict[str, str]:
    """mode -> why it does not work here, "" if it does; each is tried."""
    found: dict[str, str] = {}
    for mode in MODES:
        try:
            with _start((mode,), Limits(), WORKER, False):
                found[mode] = ""
        except CouldNotMeasure as error:
            found[mode] = str(error)
    return found


# --- what the child is given ------------------------------------------------------------------------------


def _read_artefact(path: Path) -> tuple[bytes, bool]:
    """The bytes to hand over, and whether they need onnxruntime; an ONNX folder goes as one container.

    The files are read here, so the child needs none; a link is not followed, since its bytes would go along.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            files = {name: _read_file(path / name) for name in FILES if os.path.lexists(path / name)}
            return packing.bundle(files), True
        data = _read_file(path)
    except OSError as error:
        reason = "is a link, and none is followed" if error.errno == errno.ELOOP else str(error.strerror)
        raise MalformedInput(f"cannot read {path}: {reason}; pass a program file or an ONNX folder") from error
    # A guess that decides what is imported; the child reads the format itself, and refuses where it was misled.
    return data, packing.BUNDLE.encode() in data[:4096]


def _read_file(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise MalformedInput(f"{path} is no plain file; pass a program file or an ONNX folder")
        data = file.read(packing.LARGEST_BYTES + 1)
    if len(data) > packing.LARGEST_BYTES:
        raise MalformedInput(f"{path} has {about.st_size} bytes, the limit is {packing.LARGEST_BYTES}")
    return data


def _packages(onnx: bool) -> list[Path]:
    """The folders that the child imports from, besides the standard library."""
    found: dict[Path, None] = {}
    for name in ("grit", "numpy", *(("onnx", "onnxruntime", "google.protobuf") if onnx else ())):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise CouldNotMeasure(f"the package {name} is not installed: install gritbench again")
        found[Path(spec.origin).parents[1 + name.count(".")]] = None
    return list(found)


def _bubblewrap(bwrap: str, python: str, packages: Sequence[Path], worker: Sequence[str]) -> list[str]:
    """The command up to the one that runs inside; the file system is empty but for what is named here."""
    visible = [Path(python), *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))]
    if library := sysconfig.get_config_var("INSTSONAME"):
        visible.append(Path(sysconfig.get_config_var("LIBDIR")) / library)
    # where the loader finds the C library, and what libraries ask the processor's kind
    visible += map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"))
    visible += map(Path, ("/proc/cpuinfo", "/sys/devices/system/cpu"))
    engine = Path(__file__).resolve().parent
    package = Path(str(importlib.util.find_spec("grit").origin)).parent  # type: ignore[union-attr]  # we are in it
    # of our own folder only the package itself: beside it may lie anything
    visible += [folder for folder in packages if folder != package.parent or (folder / "numpy").is_dir()]
    visible += [package, engine, *(Path(part) for part in worker if os.path.isabs(part))]
    command = [bwrap, "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for path in dict.fromkeys(visible):
        command += ["--ro-bind-try", str(path), str(path)]
    command += ["--tmpfs", str(engine / "embedded")]  # the embedded corpus has labels
    return [*command, "--remount-ro", "/", "--chdir", "/", "--"]


# --- start and end ------------------------------------------------------------------------------------------


def _chosen(mode: str | None, least: str) -> Sequence[str]:
    """The modes to try, in this order."""
    for name in (mode or MODES[0], least):
        if name not in MODES:
            raise UsageError(f"unknown sandbox mode {name!r}: modes are {', '.join(MODES)}")
    return (mode,) if mode else MODES[: 1 + MODES.index(least)]


@contextmanager
def _start(modes: Sequence[str], limits: Limits, worker: Sequence[str], onnx: bool) -> Iterator[_Child]:
    """A child that is locked in and waits; ``worker`` is what Python is called with. Afterwards it is gone."""
    reasons: list[str] = []
    for candidate in modes:
        try:
            command = _command(candidate, limits, worker, onnx)
            with tempfile.TemporaryDirectory(prefix="grit-") as empty:  # a folder that is no more takes no file
                child = _Child(candidate, "; ".join(reasons), limits, command, empty)
        except CouldNotMeasure as error:
            reasons.append(f"{candidate}: {error}")
            continue
        try:
            yield child
        finally:
            child.kill()
        return
    raise CouldNotMeasure(f"no sandbox ({'; '.join(reasons)}): repair this, or allow a weaker mode")


def _command(mode: str, limits: Limits, worker: Sequence[str], onnx: bool) -> list[str]:
    packages = _packages(onnx)
    settings: dict[str, Any] = {
        "mode": mode,
        "paths": list(map(str, packages)),
        "onnx": onnx,
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "parent": os.getpid(),
    }
    # -I: no environment, no current folder; -S: no site, so no .pth file runs; -B: no byte code is written.
    # The true path: a virtual environment's own is a link out of what the child sees.
    python = os.path.realpath(sys.executable)
    command = [python, "-I", "-S", "-B", *worker, json.dumps(settings)]
    if mode != "rlimits" and sys.platform != "linux":
        raise CouldNotMeasure(f"{sys.platform} has neither namespaces nor seccomp")
    if mode == "bubblewrap":
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise CouldNotMeasure("bwrap is not installed (Debian package bubblewrap)")
        return [*_bubblewrap(bwrap, python, packages, worker), *command]
    return command


class _Child:
    """A worker and the three pipes to it. Nothing is read that was not asked for, so nothing can flood the parent."""

    def __init__(self, mode: str, weaker: str, limits: Limits, command: Sequence[str], folder: str) -> None:
        self.mode = mode
        self.weaker = weaker
        self.seconds = 0.0
        self.peak_bytes: int | None = None
        self._limits = limits
        self._log = bytearray()
        self._log_bytes = 0
        self._input: list[memoryview] = []
        began = time.monotonic()
        self._deadline = began + START_S
        self._ready = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=folder,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._err = self._process.stdin, self._process.stdout, self._process.stderr
        for pipe in (self._in, self._out, self._err):
            os.set_blocking(pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        try:
            self._selector.register(self._out, selectors.EVENT_READ)
            self._selector.register(self._err, selectors.EVENT_READ)
            if (kind := self._take(1)) != b"R":
                raise CouldNotMeasure(self._complaint(kind)[1])
        except BaseException:
            self.kill()
            raise
        self.start_s = time.monotonic() - began
        self._ready = True

    def give(self, message: bytes) -> None:
        """To be written as soon as it is listened to."""
        parts = struct.pack("<Q", len(message)), message
        self._input += [memoryview(part) for part in parts if part]
        if self._in.fileno() not in self._selector.get_map():
            self._selector.register(self._in, selectors.EVENT_WRITE)

    def ask(self, question: bytes, texts: int) -> np.ndarray:
        """float64 [texts classes] as the child answers, of unchecked values."""
        self.give(question)
        began = time.monotonic()
        self._deadline = began + self._limits.wall_s
        if (kind := self._take(1)) != b"L":
            raise _refusal(*self._complaint(kind), self._limits)
        rows, classes = struct.unpack("<II", self._take(8))
        if rows != texts:
            raise SandboxViolation(f"the model answered for {rows} texts, not {texts}: do not trust it")
        if not 0 < classes <= LARGEST_CLASSES:
            raise MalformedInput(f"the model has {classes} classes, 1 to {LARGEST_CLASSES} are allowed")
        answer = np.frombuffer(self._take(rows * classes * 8), "<f8").reshape(rows, classes).astype(np.float64)
        self.seconds = time.monotonic() - began
        return answer

    def dismiss(self) -> None:
        """Lets a child that has answered end; SandboxViolation if it has more to say."""
        self._watch()
        if self._in.fileno() in self._selector.get_map():
            self._selector.unregister(self._in)
        self._in.close()
        self._deadline = time.monotonic() + END_S
        if self._next(1):
            raise SandboxViolation("the model wrote on after its answer: do not trust it")
        if self._process.wait(END_S):
            raise self._death()

    def kill(self) -> None:
        """Ends the child and all that it may have started, and waits until it is gone."""
        if self._process.poll() is None:  # else its number may be another's by now
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # bwrap is dead, and what was inside dies with it: when it has, the pipe is at its end
        deadline = time.monotonic() + END_S
        while self._out.read(1 << 16) != b"" and time.monotonic() < deadline:
            time.sleep(0.001)
        self._selector.close()
        for pipe in (self._in, self._out, self._err):
            pipe.close()

    # --- reading what it says

    def _take(self, size: int) -> bytes:
        """Exactly the next ``size`` bytes of its answer."""
        data = bytearray()
        while len(data) < size:
            part = self._next(size - len(data))
            if not part:
                raise self._death()
            data += part
        return bytes(data)

    def _next(self, most: int) -> bytes:
        """Some bytes of its answer, none at its end; meanwhile its input is written, its log read, its memory seen."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            for key, _ in self._selector.select(min(left, WATCH_S)):
                if key.fileobj is self._in:
                    self._feed()
                elif key.fileobj is self._err:
                    self._hear()
                else:
                    return os.read(self._out.fileno(), min(most, 1 << 20))
            self._watch()

    def _feed(self) -> None:
        try:
            written = os.write(self._in.fileno(), self._input[0][: 1 << 20])
        except BrokenPipeError:  # it ended; why, its other pipes will tell
            self._input.clear()
        else:
            self._input[0] = self._input[0][written:]
            if not self._input[0]:
                del self._input[0]
        if not self._input:
            self._selector.unregister(self._in)

    def _hear(self) -> None:
        part = os.read(self._err.fileno(), 1 << 16)
        self._log += part[: 4096 - len(self._log)] if len(self._log) < 4096 else b""
        self._log_bytes += len(part)
        if self._log_bytes > LARGEST_LOG_BYTES:
            raise SandboxViolation(f"the model wrote more than {LARGEST_LOG_BYTES} bytes to its log: do not trust it")
        if not part:
            self._selector.unregister(self._err)

    def _watch(self) -> None:
        now = _resident_bytes(self._process.pid)
        if now is not None:
            self.peak_bytes = max(now, self.peak_bytes or 0)
            if self._ready and now > self._limits.memory_bytes:
                raise _refusal("memory", "", self._limits)

    # --- how it ended

    def _complaint(self, kind: bytes) -> tuple[str, str]:
        if kind != b"E":
            return "mute", ""
        (size,) = struct.unpack("<I", self._take(4))
        if size > 1 << 16:
            return "mute", ""
        try:
            said = json.loads(self._take(size))
            what, reason = said["kind"], _printable(str(said["reason"]))
            return (what if what in _SAID else "mute"), reason
        except (ValueError, KeyError, TypeError, RecursionError):
            return "mute", ""

    def _late(self) -> GritError:
        if not self._ready:
            return CouldNotMeasure(f"the worker was not ready after {START_S:.0f} s: try on a quieter machine")
        return _refusal("time", "", self._limits)

    def _death(self) -> GritError:
        """What it means that the child has closed its pipe."""
        try:
            status = self._process.wait(max(0.1, min(END_S, self._deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            return _refusal("mute", "", self._limits)
        if self._err in [key.fileobj for key in self._selector.get_map().values()]:
            self._log += self._err.read(4096) or b""
        number = -status if status < 0 else status - 128  # the second is how bwrap passes a signal on
        name = signal.Signals(number).name if number in list(signal.Signals) else ""
        if not self._ready:
            last = _printable(self._log.decode(errors="replace").strip().rpartition("\n")[2])
            return CouldNotMeasure(f"the worker ended before it was ready: {last or name or f'status {status}'}")
        if name == "SIGABRT" and b"bad_alloc" in self._log:
            return _refusal("memory", "", self._limits)
        return _refusal({"SIGXCPU": "time", "SIGKILL": "killed"}.get(name, name or "mute"), "", self._limits)


def _refusal(kind: str, reason: str, limits: Limits) -> GritError:
    """The error for what the child says, or shows by its end; ``reason`` is in its words."""
    spent: Mapping[str, str] = {
        "time": f"it took longer than {limits.cpu_s} s of processor time or {limits.wall_s:g} s in all",
        "memory": f"it asked for more memory than {limits.memory_bytes} bytes",
        "killed": f"it was killed: {limits.cpu_s} s of processor time, or all memory of this machine, were used up",
    }
    tried: Mapping[str, str] = {
        "refused": f"it tried what the system does not let it do ({reason})",
        "SIGSYS": "it made a forbidden system call",
        "SIGXFSZ": "it wrote into a file",
    }
    if kind in spent:
        return SandboxViolation(f"the model was stopped: {spent[kind]}; raise the limits if it honestly needs more")
    if kind in tried:
        return SandboxViolation(f"the model was stopped: {tried[kind]}; do not trust it")
    if kind == "malformed":
        return MalformedInput(reason)
    if kind == "crashed":
        return MalformedInput(f"the model cannot be run ({reason}): export it again")
    if kind.startswith("SIG"):
        return MalformedInput(f"the model cannot be run (its process died of {kind}): export it again")
    return SandboxViolation("the model was stopped: it ended, or wrote something, that is no answer; do not trust it")


def _printable(text: str) -> str:
    """A line that does nothing to a terminal."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text)[:300]


def _resident_bytes(pid: int) -> int | None:
    """The largest resident memory of a process and of those below it; None where the system does not tell.

    Linux tells the peak since each began its program, which the usual account of ended children does not: there a
    child begins with what its parent had. Elsewhere ps tells what it is now.
    """
    if sys.platform != "linux":
        shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return int(shown.stdout) * 1024 if shown.stdout.strip().isdigit() else None
    largest, waiting = 0, [pid]
    try:
        while waiting:
            process = Path("/proc", str(waiting.pop()))
            for line in (process / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    largest = max(largest, int(line.split()[1]) * 1024)
            waiting += map(int, (process / "task" / process.name / "children").read_text().split())
    except OSError:  # it has ended meanwhile, or the kernel lists no children
        return None
    return largest or None
