"""Record the golden runs: python -m tests.golden.record [FILE]

The file holds, for each run, its metrics (times aside, and what is newer than the file), a fingerprint of its final
model, and its audit records, both as SHA-256 (equal on the machine that made it) and as numbers.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from fedmd.audit.reader import read_live
from tests.golden.federate import federate
from tests.golden.runs import RESUMED, RUNS

FIXTURE = Path(__file__).parent / "golden.json"
_NOT_COMPARED = ("content",)  # of the record "run started": the digest of a configuration, whose keys may be renamed


def machine() -> str:
    """What decides the last digits: PyTorch, and the instructions of the CPU."""
    return f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {_cpu()}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    wanted = ("vendor_id", "cpu family", "model\t")
    return " ".join(dict.fromkeys(line.partition(":")[2].strip() for line in lines if line.startswith(wanted)))


def record_all(work: Path, only: str | None = None) -> dict[str, Any]:
    """Every golden run (or the one called `only`), run in `work`."""
    cells = {name: (overrides, None) for name, overrides in RUNS.items()}
    cells |= {name: (overrides, stop) for name, (overrides, stop) in RESUMED.items()}  # type: ignore[misc]
    return {
        name: record(work, name, overrides, stop_after)
        for name, (overrides, stop_after) in cells.items()
        if only in (None, name)
    }


def record(work: Path, name: str, overrides: list[str], stop_after: int | None) -> dict[str, Any]:
    """One run, in the folder of its name below `work`."""
    model = federate(overrides, work / name, work / "cache", stop_after=stop_after)
    metrics = [json.loads(line) for line in (work / name / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in row.items() if key not in ("wall_s", "alarms")} for row in metrics]
    summary = json.loads((work / name / "summary.json").read_text())
    summary = {
        key: summary[key]
        for key in summary
        if key not in ("wall_s", "versions", "config", "schema", "audit_head", "scores", "warnings", "quarantine")
    }
    summary["detection"]["rivals"] = summary["detection"].pop("baselines")  # as they were called in the fixture
    if summary["defense"]["name"] == "discrepancy_screening":
        summary["defense"]["name"] = "md_screen"  # likewise
    entries = [entry.entry.body() for entry in read_live(work / name / "audit")]
    for body in entries:
        if body["kind"] == "run":
            for key in _NOT_COMPARED:
                body.pop(key, None)
    tensors = {key: model[key].detach().cpu().contiguous() for key in sorted(model)}
    hashed = hashlib.sha256()
    for key, tensor in tensors.items():
        hashed.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "metrics": metrics,
        "summary": summary,
        "audit_records": len(entries),
        "audit_discrepancy": sum(body.get("discrepancy", 0.0) for body in entries),
        "model_norm": float(sum(t.double().square().sum() for t in tensors.values() if t.is_floating_point()) ** 0.5),
        "sha256": {
            "metrics": _hash(metrics),
            "summary": _hash(summary),
            "audit": _hash(entries),
            "model": hashed.hexdigest(),
        },
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def main(arguments: list[str]) -> None:
    """Write the fixture, or the file named."""
    path = Path(arguments[0]) if arguments else FIXTURE
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as work:
        recorded = {"machine": machine(), "commit": commit, "runs": record_all(Path(work))}
    path.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
