"""A stand-in for SLURM's commands on one machine: it runs jobs for real, with the variables, arrays and requeues of SLURM.

Copies of this file are named sbatch, srun, squeue, scontrol, scancel and sacct. A job is a folder below
``$SLURM_STAND_IN``, with its state, how often it was started, and what was asked of it. Signals go to all
processes of a job's steps and not to its script, as SLURM's proctrack/linuxproc sends them (seen with 22.05).
"""

import fcntl
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ.get("SLURM_STAND_IN", "."))


def folder_of(job_id):
    return ROOT / "jobs" / job_id


def read(job_id):
    return json.loads((folder_of(job_id) / "job.json").read_text())


def write(job_id, **changes):
    path = folder_of(job_id) / "job.json"
    job = (json.loads(path.read_text()) if path.is_file() else {}) | changes
    path.with_suffix(".new").write_text(json.dumps(job))
    path.with_suffix(".new").replace(path)


def jobs():
    return sorted(path.parent.name for path in ROOT.glob("jobs/*/job.json"))


def matching(job_id):
    return [one for one in jobs() if one == job_id or one.partition("_")[0] == job_id]


def sbatch(arguments):
    script = Path(arguments[0])
    options = dict(
        shlex.split(match[1])[0].removeprefix("--").partition("=")[::2]
        for match in re.finditer(r"^#SBATCH (.+)$", script.read_text(), re.M)
    )
    if options.get("partition") == "nowhere":
        sys.exit(
            "sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:  # one id to each
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = len(list(ROOT.glob("submission-*"))) + 1001
        (ROOT / f"submission-{number}").write_text(script.read_text())
    limit = 1
    ids = [str(number)]
    if "array" in options:
        last, limit = map(int, re.fullmatch(r"0-(\d+)%(\d+)", options["array"]).groups())
        ids = [f"{number}_{task}" for task in range(last + 1)]
    for job_id in ids:
        folder_of(job_id).mkdir(parents=True)
        write(job_id, state="PENDING", restarts=0)
    print(f"Submitted batch job {number}", flush=True)
    if os.fork() == 0:  # what slurmctld and slurmd do, until all have ended
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        control(number, ids, limit, options)


def control(number, ids, limit, options):
    running = {}
    tasks = int(options.get("nodes", 1)) * int(options.get("ntasks-per-node", 1))
    while running or any(read(one)["state"] == "PENDING" for one in ids):
        for job_id in ids:
            asked = {path.name for path in folder_of(job_id).iterdir()} & {"cancel", "requeue", "lose"}
            if job_id in running:
                process = running[job_id]
                if asked and not read(job_id).get("killing"):
                    write(job_id, killing=True)
                    signal_steps(job_id, signal.SIGKILL if "lose" in asked else signal.SIGTERM)
                if process.poll() is not None:
                    del running[job_id]
                    ended(job_id, process.returncode, asked)
            elif asked & {"cancel", "lose"} and read(job_id)["state"] == "PENDING":
                write(job_id, state="CANCELLED")
            elif read(job_id)["state"] == "PENDING" and len(running) < limit:
                running[job_id] = started(number, job_id, options, tasks)
        time.sleep(0.1)


def started(number, job_id, options, tasks):
    restarts = read(job_id)["restarts"]
    task = job_id.partition("_")[2]
    environment = os.environ | {
        "SLURM_JOB_ID": str(number * 100 + int(task or 0)),
        "SLURM_NTASKS": str(tasks),
        "SLURM_JOB_NUM_NODES": options.get("nodes", "1"),
        "STAND_IN_JOB": job_id,
    }
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": task}
    if restarts:
        environment["SLURM_RESTART_COUNT"] = str(restarts)
    output = options["output"].replace("%A", str(number)).replace("%a", task).replace("%j", str(number))
    with Path(output).open("a") as file:
        process = subprocess.Popen(
            ["bash", str(ROOT / f"submission-{number}")],
            env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    write(job_id, state="RUNNING", session=process.pid, killing=False)
    return process


def ended(job_id, returncode, asked):
    for name in asked:
        (folder_of(job_id) / name).replace(folder_of(job_id) / f"{name}.done")
    if "requeue" in asked:
        write(job_id, state="PENDING", restarts=read(job_id)["restarts"] + 1)
    elif "lose" in asked:
        write(job_id, state=(folder_of(job_id) / "lose.done").read_text())
    elif "cancel" in asked:
        write(job_id, state="CANCELLED")
    else:
        write(job_id, state="FAILED" if returncode else "COMPLETED", exit=returncode)


def signal_steps(job_id, number):
    """Send a signal to all processes of a job but its script and srun."""
    session = read(job_id)["session"]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        pid = int(path.parent.name)
        if int(fields[3]) == session and pid != session and b"/srun\0" not in command:
            os.kill(pid, number)


def srun(arguments):
    first = next(
        n
        for n, word in enumerate(arguments)
        if not word.startswith("--") and arguments[n - 1] not in ("--output", "--error")
    )
    options = dict(itertools.pairwise(arguments[:first]))
    number, _, task = os.environ["STAND_IN_JOB"].partition("_")
    processes = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        files = []
        for name in ("--output", "--error"):
            path = options[name]
            for sign, value in {"%A": number, "%a": task, "%j": number, "%t": str(rank)}.items():
                path = path.replace(sign, value)
            files.append(Path(path).open("ab"))  # noqa: SIM115
        environment = os.environ | {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NODEID": "0",
        }
        processes.append(
            subprocess.Popen(arguments[first:], env=environment, stdout=files[0], stderr=files[1])
        )
    statuses = [process.wait() for process in processes]
    sys.exit(max(128 - status if status < 0 else status for status in statuses))


def squeue(arguments):
    wanted = next((word.partition("=")[2] for word in arguments if word.startswith("--jobs=")), None)
    for job_id in jobs() if wanted is None else matching(wanted):
        state = read(job_id)["state"]
        is_ending = state == "RUNNING" and any(
            (folder_of(job_id) / name).exists() for name in ("cancel", "lose")
        )
        print(f"{job_id}|{'COMPLETING' if is_ending else state}")


def scontrol(arguments):
    if arguments[0] != "requeue" or not matching(arguments[1]):
        sys.exit(f"Invalid job id specified for job {arguments[1]}")
    (folder_of(arguments[1]) / "requeue").touch()


def scancel(arguments):
    asked = next((word.partition("=")[2] for word in arguments if word.startswith("--signal=")), None)
    for job_id in (one for word in arguments if not word.startswith("--") for one in matching(word)):
        if asked:
            signal_steps(job_id, signal.Signals[f"SIG{asked}"])
        elif read(job_id)["state"] in ("PENDING", "RUNNING"):
            (folder_of(job_id) / "cancel").touch()


def sacct(arguments):
    sys.exit("Slurm accounting storage is disabled")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](sys.argv[1:])
