"""How a running server can be watched."""

from typing import Annotated

from pydantic import Field

from fedmd.config.section import Section


class ObservabilityConfig(Section):
    """`prometheus_port` (0: any free one) serves /metrics and /health on `host`; `json_logs` turns every line of the
    server's log into a JSON object. Neither changes a result."""

    prometheus_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    host: str = "127.0.0.1"
    json_logs: bool = False

    @property
    def is_live(self) -> bool:
        """Whether somebody may be watching the server's numbers."""
        return self.prometheus_port is not None
