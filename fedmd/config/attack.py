"""Settings of the colluders."""

from typing import Annotated, ClassVar

from pydantic import Field

from fedmd.config.base import STREAM_ONLY, Share
from fedmd.config.plugin import PluginSection


class AttackConfig(PluginSection):
    """The colluders: which attack, how many of them, and its own settings, `params`; see `fedmd.attacks.catalogue`."""

    section: ClassVar[str] = "attack"

    fraction: Share = Field(0.2, description="share of clients that are malicious for the whole run")
    stop_error_rise: Annotated[Annotated[float, Field(gt=0, le=1)] | None, STREAM_ONLY] = Field(
        None, description="e.g. 0.02: the trigger phase begins once the attackers' own error rose by so much"
    )
