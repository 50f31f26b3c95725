"""The child of the sandbox: it locks itself in, and only then reads the first byte that somebody else wrote.

:mod:`grit.bench.sandbox` starts this file as a script, isolated (``-I -S``), with one JSON argument, and talks to it
through three pipes. Nothing of it is meant to be imported elsewhere.

    1. it imports what it will need, from the paths it was given: numpy and the program reader, no torch; onnxruntime
       only if it is told so
    2. it locks itself in (:func:`confine`) and writes ``R``, or ``E`` and why it cannot
    3. it reads the artefact's bytes, then one question after the other, texts or a graph's inputs: no name, no label
    4. to each it writes ``L`` and the logits, or ``E`` and what went wrong, and waits until it is let go

The lock has up to three layers. bubblewrap, which stands around this process, hides the machine. The seccomp filter
is a list of the system calls that arithmetic needs; whoever asks for a file to read is refused, and any
other call ends the process. Resource limits bound time and memory, and allow no new process, no new file descriptor
and no byte in a file; they hold where nothing else does, but a model that runs code of its own finds ways around some
of them (which, says the table of :mod:`grit.bench.sandbox`).
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

READY, LOGITS, ERROR = b"R", b"L", b"E"
NOBODY = 65534  # the user and group that root becomes
LONGEST_ERROR = 1000  # characters
OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory")  # how onnxruntime says it, in errors of no kind of their own

Answer = Callable[[bytes], "np.ndarray"]
"""A question -> float64 logits [texts classes]."""
Respond = Callable[[bytes], Answer]
"""The artefact's bytes -> what answers questions to it."""


# --- the filter of system calls -------------------------------------------------------------------------

# A classic BPF program over struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
# (Linux, Documentation/userspace-api/seccomp_filter.rst). Only the low half of an argument is looked at: the
# arguments in question are ints, or flags in the lowest bits.
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES  # KILL: the process, not the thread

# name -> (x86_64, aarch64), -1 where there is none. Those called most stand first: the filter is read from the top.
ALLOWED: Mapping[str, tuple[int, int]] = {
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "futex": (202, 98),
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, -1),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# What a library may try without harm, and does without: the look for a file, a terminal, a processor.
REFUSED: Mapping[str, tuple[int, int]] = {
    "stat": (4, -1),
    "lstat": (6, -1),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "openat2": (437, 437),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "get_mempolicy": (239, 236),
    "set_mempolicy": (238, 237),
    "mbind": (237, 235),
    "prctl": (157, 167),
    "uname": (63, 160),
    "sysinfo": (99, 179),
}
# Decided by the flags: name -> (numbers, argument, bits, what happens without any of the bits); with one, KILL.
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EXECUTABLE = 4  # PROT_EXEC
BY_FLAGS: Mapping[str, tuple[tuple[int, int], int, int, int]] = {
    "mmap": ((9, 222), 2, _EXECUTABLE, ALLOW),
    "mprotect": ((10, 226), 2, _EXECUTABLE, ALLOW),
    "open": ((2, -1), 1, _WRITES, REFUSE),
    "openat": ((257, 56), 2, _WRITES, REFUSE),
}
TGKILL = (234, 131)  # abort() ends the process by it; to any other process it is forbidden
_SECCOMP = (317, 277)
# platform.machine() -> (which of the two numbers, AUDIT_ARCH of linux/audit.h)
MACHINES: Mapping[str, tuple[int, int]] = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for a machine of :data:`MACHINES` and the process ``pid``.

    Another calling convention of the same processor (32 bits, x32) has other numbers, so it is killed whole.
    """
    which, arch = MACHINES[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, 0),
    ]

    def on(numbers: tuple[int, int], then: list[Instruction]) -> None:
        if numbers[which] >= 0:
            code.extend([(_EQUAL, 0, len(then), numbers[which]), *then])

    for numbers, argument, bits, otherwise in BY_FLAGS.values():
        low = (_LOAD, 0, 0, 16 + 8 * argument)
        on(numbers, [low, (_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, KILL), (_RETURN, 0, 0, otherwise)])
    for numbers in ALLOWED.values():
        on(numbers, [(_RETURN, 0, 0, ALLOW)])
    on(TGKILL, [(_LOAD, 0, 0, 16), (_EQUAL, 0, 1, pid), (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, KILL)])
    for numbers in REFUSED.values():
        on(numbers, [(_RETURN, 0, 0, REFUSE)])
    code.append((_RETURN, 0, 0, KILL))
    return code


def _filter_calls() -> None:
    """Installs the filter in every thread of this process; OSError where the kernel does not take it."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    machine = platform.machine()
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program(machine, os.getpid()))
    room = ctypes.create_string_buffer(code, len(code))
    whole = Program(len(code) // 8, ctypes.addressof(room))
    set_mode_filter, all_threads = 1, 1
    _call("syscall", _SECCOMP[MACHINES[machine][0]], set_mode_filter, all_threads, ctypes.addressof(whole))


# --- the lock -------------------------------------------------------------------------------------------


def confine(settings: Mapping[str, Any]) -> None:
    """Locks this process in, as ``settings`` say; OSError or ValueError where the system does not let it.

    mode: ``bubblewrap``, ``seccomp`` or ``rlimits``. memory_bytes of address space, cpu_s, and parent, the process
    whose end is this one's end too.
    """
    os.closerange(3, 4096)  # the parent leaves none open; this is for what an import may have opened
    mode = settings["mode"]
    if mode != "rlimits" and platform.machine() not in MACHINES:
        raise ValueError(f"no filter of system calls is written for {platform.machine()}")
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: a byte in a file is to be the end
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    bounds = {
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_CPU": (settings["cpu_s"], settings["cpu_s"] + 1),  # the second cannot be caught
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
        "RLIMIT_NOFILE": (3, 3),  # those that are open
        "RLIMIT_NPROC": (0, 0),  # counts threads as well
    }
    linux = sys.platform == "linux"
    if linux:
        bounds["RLIMIT_AS"] = (settings["memory_bytes"],) * 2  # macOS refuses it, so there the parent watches alone
    for name, bound in bounds.items():
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), bound)
    if mode != "bubblewrap" and os.geteuid() == 0:
        # Root passes by limits, and owns the machine. Inside bubblewrap it is nobody already.
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if linux:
        _call(
            "capset", ctypes.byref((ctypes.c_uint32 * 2)(0x20080522, 0)), ctypes.byref((ctypes.c_uint32 * 6)())
        )  # none
        end_with_parent, no_new_privileges = 1, 38
        _call("prctl", no_new_privileges, 1, 0, 0, 0)
        if mode != "bubblewrap":  # whose --die-with-parent does the same
            _call("prctl", end_with_parent, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != settings["parent"]:
                os._exit(1)
    if mode != "rlimits":
        _filter_calls()
    else:
        _try_to_fork()


def _try_to_fork() -> None:
    """The kernel counts no processes of the machine's root, under whatever number a container shows him."""
    try:
        child = os.fork()
    except OSError:
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    raise OSError(errno.EPERM, "the limit of processes does not hold for this user")


def _call(name: str, *arguments: Any) -> None:
    """A function of the C library that gives 0, or an OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*(ctypes.c_ulong(v) if isinstance(v, int) else v for v in arguments)):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


# --- the talk -------------------------------------------------------------------------------------------


def serve(settings: Mapping[str, Any], respond: Respond) -> None:
    """Steps 2 to 4 of this file's story; never returns."""
    try:
        confine(settings)
    except (OSError, ValueError) as error:
        _complain("unconfined", str(error))
    _write(READY)
    try:
        answer = respond(_message())
        while begun := os.read(0, 1):
            logits = answer(_message(begun)).astype("<f8")
            rows, classes = logits.shape
            _write(LOGITS + struct.pack("<II", rows, classes) + logits.tobytes())
        os._exit(0)
    except MemoryError:
        _complain("memory", "")
    except OSError as error:
        _complain("refused", str(error))
    except Exception as error:  # noqa: BLE001  # whatever a stranger's bytes set off, the parent must hear of it
        if any(words in f"{error} {error.__cause__}" for words in OUT_OF_MEMORY):
            _complain("memory", "")
        elif getattr(error, "exit_code", 0) == 6:
            _complain("malformed", str(error))
        else:
            _complain("crashed", f"{type(error).__name__}: {error}")


def _complain(kind: str, reason: str) -> None:
    text = json.dumps({"kind": kind, "reason": reason[:LONGEST_ERROR]}).encode()
    _write(ERROR + struct.pack("<I", len(text)) + text)
    _end()


def _end() -> None:
    while os.read(0, 1 << 16):  # the parent looks at this process once more, then lets it go
        pass
    os._exit(0)


def _message(begun: bytes = b"") -> bytes:
    (size,) = struct.unpack("<Q", begun + _read(8 - len(begun)))
    return _read(size)


def _read(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(0, min(size - len(data), 1 << 20))
        if not part:
            os._exit(1)  # the parent is gone
        data += part
    return bytes(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# --- the model at work ------------------------------------------------------------------------------------


def responder(*, onnx: bool) -> Respond:
    """Imports all that an artefact needs, since nothing can be imported once the lock is on."""
    from grit.bench.export import packing, words

    def of_program(data: bytes) -> Answer:
        program = packing.artefact(data)
        return lambda question: words.answer(program, json.loads(question))

    if not onnx:
        return of_program
    import onnxruntime  # noqa: F401  # its first import opens files

    from grit.bench.export import onnx as folders

    def of_graph(data: bytes) -> Answer:
        graph = folders.OnnxArtefact(packing.unbundle(data))
        return lambda question: (
            graph.fed(inputs(question)) if question[:1] == b"{" else words.answer(graph, json.loads(question))
        )

    return of_graph


def inputs(question: bytes) -> dict[str, np.ndarray]:
    """Arrays by name: a line of JSON, name -> [type, shape], and their bytes one after the other."""
    import numpy as np

    line, _, data = question.partition(b"\n")
    found, start = {}, 0
    for name, (kind, shape) in json.loads(line).items():
        found[name] = np.frombuffer(data, kind, math.prod(shape), start).reshape(shape)
        start += found[name].nbytes
    return found


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path += settings["paths"]
    serve(settings, responder(onnx=settings["onnx"]))


if __name__ == "__main__":
    main()
