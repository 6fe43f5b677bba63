"""Which samples were poisoned: recomputed from roster and schedule, never sent by a client."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedmd.report.files import TRUTH, read_json, write_json


@dataclass(frozen=True)
class Truth:
    """The malicious clients' ids and the rounds in which they poison what they send."""

    malicious_clients: tuple[int, ...]
    poisoned_rounds: tuple[int, ...]

    def mask(self, rounds: NDArray[np.int64], clients: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Poisoned [N]: sample i came in round `rounds[i]` from client `clients[i]`, and both are listed."""
        malicious = np.isin(clients, np.array(self.malicious_clients, np.int64))
        return malicious & np.isin(rounds, np.array(self.poisoned_rounds, np.int64))

    def write(self, folder: Path) -> None:
        """Write truth.json into the run folder."""
        write_json(folder / TRUTH, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read truth.json from the run folder."""
        value = read_json(folder / TRUTH)
        return cls(tuple(value["malicious_clients"]), tuple(value["poisoned_rounds"]))
