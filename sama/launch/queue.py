"""What Slurm says of our jobs: `squeue`, `scontrol`, `sacct`, and in words why a job ended."""

import os
import pwd
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from sama.errors import SamaError

FINAL = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
UNKNOWN = "UNKNOWN"  # the controller does not answer
GONE = "GONE"  # the controller has forgotten the job
SECONDS = 120
PAUSES = (1.0, 4.0, 10.0, 30.0)  # before the queue is asked again: a controller may be restarted, or busy
# as slurmstepd and srun say it, with cgroups and without; a program's own words prove nothing
OUT_OF_MEMORY = re.compile(r"^(srun|slurmstepd)\S*: .*(oom.?kill|exceeded .*memory limit|out of memory)", re.I | re.M)
EXIT_OUT_OF_MEMORY = "0:125"


@dataclass(frozen=True)
class Queued:
    """A job, or a task ARRAY_INDEX of an array, that has not ended; `array` names the jobs of the array."""

    job_id: str
    state: str
    name: str
    comment: str
    array: str = ""


@dataclass(frozen=True)
class State:
    """What the controller says of a job: state, exit as code:signal, why it waits or ended, its nodes, restarts."""

    state: str
    exit: str = ""
    reason: str = ""
    nodes: str = ""
    restarts: int = 0

    @property
    def final(self) -> bool:
        """Whether nothing follows; a requeued job is PENDING again."""
        return self.state in FINAL or self.state == GONE


@dataclass(frozen=True)
class Memory:
    """What the accounting says: the most that a task held (looked at now and then), what was asked for, in MB.

    `ran_out`: Slurm itself ended a step for it.
    """

    held: float | None = None
    asked: float | None = None
    ran_out: bool = False

    def __str__(self) -> str:
        if self.held is None or self.asked is None:
            return "the accounting does not say how much memory it held"
        return f"it was seen with {self.held:.0f} of the {self.asked:.0f} MB that it asked for"


def ask(*command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """What a program of Slurm answers; one that does not in time has failed.

    Raises:
        SamaError: the program is missing.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise SamaError(f"{command[0]}: not found; the launcher slurm needs the programs of Slurm") from error
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {seconds:g} s")


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def ours() -> list[Queued]:
    """Our jobs in the queue, in every state but the final ones.

    Raises:
        SamaError: the controller cannot be asked, not even after PAUSES.
    """
    command = ("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%T|%j|%k")
    answer = ask(*command)
    for pause in PAUSES:
        if answer.returncode == 0:
            break
        time.sleep(pause)
        answer = ask(*command)
    if answer.returncode:
        raise SamaError(f"squeue: the queue cannot be read ({last_line(answer.stderr)})")
    lines = [line.split("|", 4) for line in answer.stdout.splitlines() if line.count("|") >= 4]
    return [Queued(f"{job}_{index}" if index.isdecimal() else job, *rest) for job, index, *rest in lines]


def look(job_id: str) -> State:
    """What the controller says of a job."""
    answer = ask("scontrol", "--oneliner", "show", "job", job_id)
    if answer.returncode:
        gone = "Invalid job id" in answer.stderr or " not found" in answer.stdout  # the latter of a task of an array
        return State(GONE if gone else UNKNOWN)
    facts = dict(re.findall(r"(\w+)=(\S*)", answer.stdout))
    nodes = facts.get("NodeList", "").replace("(null)", "")
    restarts = int(facts.get("Restarts", "0"))
    return State(facts.get("JobState", UNKNOWN), facts.get("ExitCode", ""), facts.get("Reason", ""), nodes, restarts)


def cancel(job_id: str) -> None:
    """Ask for the job's end."""
    ask("scancel", job_id)


def account(job_id: str) -> str:
    """The job's state in the accounting, which knows who cancelled it and keeps it for long; empty without one."""
    answer = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", "--format=State")
    return answer.stdout.strip().splitlines()[-1] if answer.returncode == 0 and answer.stdout.strip() else ""


def memory(job_id: str) -> Memory:
    """The memory of the job and its steps in the accounting, which may not have heard of its end yet."""
    columns = "State,ExitCode,MaxRSS,ReqMem"
    answer = ask("sacct", "--noheader", "--parsable2", "--units=M", f"--jobs={job_id}", f"--format={columns}")
    rows = [line.split("|") for line in answer.stdout.splitlines() if line.count("|") == 3 and not answer.returncode]

    def most(column: int) -> float | None:
        numbers = [re.match(r"[\d.]+(?=M)", row[column]) for row in rows]
        return max((float(number[0]) for number in numbers if number), default=None)

    ran_out = any(row[0].startswith("OUT_OF_ME") or row[1] == EXIT_OUT_OF_MEMORY for row in rows)
    return Memory(most(2), most(3), ran_out)


def reason(state: State, accounted: str, log: str, minutes: float, used: Memory) -> str:
    """Why a job ended that left no result, in words.

    Args:
        state: the last one that the controller knew.
        accounted: `account` of the job.
        log: the end of what it wrote.
        minutes: its time limit.
        used: `memory` of the job.
    """
    kind = _kind(state, accounted)
    if _ran_out_of_memory(state, accounted, log, used):
        return f"ran out of memory ({used}): more of it (mem_mb, --memory-mb), or smaller batches"
    if kind == "TIMEOUT":
        return f"reached its time limit of {minutes:g} minutes before it could be requeued"
    if kind in ("NODE_FAIL", "BOOT_FAIL"):
        return f"lost its node ({state.nodes or 'unknown'}) and was not requeued"
    if kind == "CANCELLED":
        by = re.search(r"by (\d+)", accounted)
        return f"was cancelled by {_user(int(by[1])) if by else 'somebody: the accounting does not say whom'}"
    if _killed(state, accounted):
        return f"was killed by signal 9: out of memory, if nobody killed it, which Slurm does not say ({used})"
    if kind == "FAILED":
        return f"failed without a result (exit code {state.exit or 'unknown'}, {state.reason or 'no reason'})"
    if kind == GONE:
        return "is gone from the queue and from the accounting: it was cancelled before it began"
    return f"ended in state {kind} without a result"


def kind_of_failure(state: State, accounted: str, log: str, used: Memory) -> str:
    """`out_of_memory` or `node_failure`, from what `reason` takes; empty for all that nobody tries again."""
    kind = _kind(state, accounted)
    if _ran_out_of_memory(state, accounted, log, used):
        return "out_of_memory"
    return "node_failure" if kind in ("NODE_FAIL", "BOOT_FAIL") else ""


def _kind(state: State, accounted: str) -> str:
    return accounted.split()[0] if state.state in (GONE, UNKNOWN) and accounted else state.state


def _killed(state: State, accounted: str) -> bool:
    code, _, number = state.exit.partition(":")
    return _kind(state, accounted) == "FAILED" and "9" in (number, code, str(int(code or 0) - 128))


def _ran_out_of_memory(state: State, accounted: str, log: str, used: Memory) -> bool:
    told = used.ran_out or state.exit == EXIT_OUT_OF_MEMORY or OUT_OF_MEMORY.search(log)
    full = used.held and used.asked and used.held >= used.asked
    return bool(_kind(state, accounted) == "OUT_OF_MEMORY" or told or (full and _killed(state, accounted)))


def last_word(log: str) -> str:
    """The last line that the program itself wrote: an exception's, after its traceback."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("srun:", "slurmstepd"))]
    return lines[-1].strip() if lines else "it said nothing"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def tail(path: Path, size: int = 20_000) -> str:
    """The end of a text file; empty if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - size))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
