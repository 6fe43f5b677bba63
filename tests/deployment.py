"""A federation of real processes on loopback: what it needs of the machine, and its nodes as the operator sees them."""

import json
from pathlib import Path

import pytest

from fedmd.deploy.federation import has_proxy
from fedmd.deploy.processes import Processes

NEEDS = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
    pytest.mark.skipif(not has_proxy(), reason="nginx is not installed"),
]


def nodes(processes: Processes) -> list[dict[str, str]]:
    """What the operator's own command says of the nodes that SuperLink knows."""
    text = processes.run(["flwr", "supernode", "list", "federation", "--format", "json"], timeout_s=120)
    found: list[dict[str, str]] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["nodes"]
    return found


def statuses(processes: Processes) -> list[str]:
    """Theirs, sorted."""
    return sorted(node["status"] for node in nodes(processes))
