"""Who owns a process and who holds a folder, so that nothing outlives what started it.

Three facts are enough for a pipeline that may be killed at any moment and typed again:

- a stage knows its owner (`SAMA_OWNER_PID`) and ends when the owner is gone (`watch_owner`);
- a living stage holds a shared lock (`hold_job_lock`), so a new pipeline waits for the last writer (`wait_for_jobs`);
- a living pipeline holds an exclusive lock (`hold_folder`), so a second one is refused.

The locks are the kernel's (`flock`): they vanish with the process that holds them, however it ends.
"""

import contextlib
import ctypes
import errno
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from sama.errors import SamaError

OWNER = "SAMA_OWNER_PID"
HELD = "SAMA_FOLDER_HELD"
STATE = Path(".snakemake")
FOLDER_LOCK = "sama.lock"
JOB_LOCK = "sama-jobs.lock"
POLL_SECONDS = 0.5
GRACE_SECONDS = 1.0

_locks: dict[str, int] = {}
_watching = False


def identity(pid: int) -> str:
    """`pid:starttime` of a process, which no other process will ever have; `pid:` where /proc is missing."""
    return f"{pid}:{(_stat(pid) or ('', '', ''))[2]}"


def alive(owner: str) -> bool:
    """Whether the process with this identity still runs; a zombie does not."""
    pid, _, started = owner.partition(":")
    if not pid.isdecimal():
        raise SamaError(f"{OWNER}: expected pid:starttime, got {owner!r}")
    if not sys.platform.startswith("linux"):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    found = _stat(int(pid))
    return found is not None and found[0] not in "ZX" and started in ("", found[2])


def own_environment() -> dict[str, str]:
    """The variable that makes children watch this process."""
    return {OWNER: identity(os.getpid())}


def detach() -> None:
    """Watch no owner and hold no lock of the folder: for a job on a cluster, which outlives those that asked for it."""
    global _watching
    _watching = True
    os.environ.pop(OWNER, None)
    _locks[JOB_LOCK] = -1


def watch_owner(orderly: bool = True) -> None:
    """End this process when its owner, or the parent between them, is gone; nothing is watched without an owner.

    The first look is taken before this returns, so a stage whose owner died while it was starting never begins.
    The end is SIGTERM to ourselves (the stage removes its temporary files), then, a second later, SIGKILL to the
    children and an immediate exit. Without `orderly` it is the exit alone, and the children go on.
    """
    global _watching
    owner = os.environ.get(OWNER, "")
    if _watching or not owner or owner == identity(os.getpid()):
        return
    parent = os.getppid()
    if not alive(owner):
        os._exit(143)

    def watch() -> None:
        while alive(owner) and os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        if not orderly:
            os._exit(143)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        for pid in descendants(os.getpid()):
            kill(pid)
        os._exit(143)

    _watching = True
    threading.Thread(target=watch, name="sama-owner-watch", daemon=True).start()


def hold_job_lock() -> None:
    """Hold the shared job lock of this folder for the life of the process; a folder no pipeline has used has none."""
    if STATE.is_dir() and JOB_LOCK not in _locks:
        descriptor = _open(STATE / JOB_LOCK)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _locks[JOB_LOCK] = descriptor


def hold_folder(inherit: bool = False) -> None:
    """Hold this folder for one pipeline until the process ends.

    Does nothing if this process or its living starter holds it already (`sama pipeline` becomes Snakemake by exec,
    and keeps the lock with `inherit=True`).

    Raises:
        SamaError: another pipeline holds it; says which and since when.
    """
    folder = Path.cwd()
    holder, _, held_folder = os.environ.get(HELD, "").partition("@")
    if holder and held_folder == str(folder) and alive(holder):
        return
    STATE.mkdir(exist_ok=True)
    descriptor = _open(STATE / FOLDER_LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "pid unknown"
        os.close(descriptor)
        raise SamaError(f"another pipeline ({who}) holds {folder}: wait until it ends, or stop it") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode(), 0)
    os.set_inheritable(descriptor, inherit)
    os.environ[HELD] = f"{identity(os.getpid())}@{folder}"
    _locks[FOLDER_LOCK] = descriptor


def wait_for_jobs(timeout: float = 60.0) -> None:
    """Wait until no job of an earlier pipeline writes here; they end by themselves when their owner is gone.

    Raises:
        SamaError: some still run after `timeout` seconds; names their process ids.
    """
    STATE.mkdir(exist_ok=True)
    path = STATE / JOB_LOCK
    descriptor = _open(path)
    try:
        end, told = time.monotonic() + timeout, False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                pids = ", ".join(map(str, _holders(path))) or "unknown"
                if time.monotonic() >= end:
                    raise SamaError(
                        f"jobs still run in {Path.cwd()} (pid {pids}) after {timeout:g} s: stop them, then try again"
                    ) from error
                if not told:
                    print(f"sama: waiting for jobs of an earlier run to end (pid {pids})", file=sys.stderr, flush=True)
                    told = True
            time.sleep(0.1)
    finally:
        os.close(descriptor)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send `number` to this process when its parent dies; it survives exec. Linux only.

    The kernel means the *thread* that started us: a parent that starts us from a thread which ends takes us with it.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    set_parent_death_signal = 1
    if libc.prctl(set_parent_death_signal, int(number), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {errno.errorcode.get(code, code)}")
    if os.getppid() != parent:
        os._exit(128 + number)


def descendants(pid: int) -> list[int]:
    """The living children of `pid` and theirs, nearest first. Linux only; elsewhere our own multiprocessing ones."""
    if not sys.platform.startswith("linux"):
        return [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        found = _stat(int(entry.name)) if entry.name.isdecimal() else None
        if found is not None:
            children.setdefault(int(found[1]), []).append(int(entry.name))
    result, front = [], [pid]
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        result += front
    return result


def kill(pid: int) -> None:
    """SIGKILL one process, if it is still there and ours."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> tuple[str, str, str] | None:
    """State, parent and start time (clock ticks since boot) from /proc, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], fields[1], fields[19]


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise SamaError(f"{path}: the lock cannot be opened ({error.strerror})") from error


def _holders(path: Path) -> list[int]:
    """Processes, other than this one, that have `path` open."""
    target, found = str(path.resolve()), []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) == target for link in (entry / "fd").iterdir()):
                found.append(int(entry.name))
    return sorted(found)
