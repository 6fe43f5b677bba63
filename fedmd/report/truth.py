"""Which samples were poisoned: recomputed from roster and schedule, never sent by a client."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmd.report.files import TRUTH, read_json, write_json


@dataclass(frozen=True)
class Truth:
    """The malicious clients' ids and the rounds in which they poison what they send.

    Of a poisoned batch the first `poisoned_samples` are poisoned; None means all of them.
    """

    malicious_clients: tuple[int, ...]
    poisoned_rounds: tuple[int, ...]
    poisoned_samples: int | None = None

    def mask(
        self, rounds: NDArray[np.int64], clients: NDArray[np.int64], index: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Poisoned [N] of the samples (round, client, index): round and client are listed, `index` is low enough."""
        malicious = np.isin(clients, np.array(self.malicious_clients, np.int64))
        poisoned = malicious & np.isin(rounds, np.array(self.poisoned_rounds, np.int64))
        return poisoned if self.poisoned_samples is None else poisoned & (index < self.poisoned_samples)

    def of(self, verdicts: pd.DataFrame) -> NDArray[np.bool_]:
        """`mask` of the rows of read_verdicts; needs the columns round, client and index."""
        return self.mask(*(verdicts[name].to_numpy(np.int64) for name in ("round", "client", "index")))

    def write(self, folder: Path) -> None:
        """Write truth.json into the run folder."""
        write_json(folder / TRUTH, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read truth.json from the run folder."""
        value = read_json(folder / TRUTH)
        return cls(tuple(value["malicious_clients"]), tuple(value["poisoned_rounds"]), value.get("poisoned_samples"))
