"""One run as a frozen record that validates itself."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedmd import registry
from fedmd.config.attack import AttackConfig
from fedmd.config.base import ConfigError, CountOrZero, Mode, Section, sentence
from fedmd.config.data import DataConfig, StreamConfig
from fedmd.config.defense import (
    DefenseConfig,
    HistoryConfig,
    QuarantineConfig,
    ScreeningConfig,
    StrategyConfig,
    ThresholdConfig,
)
from fedmd.config.plugin import PluginSection, Unresolved
from fedmd.config.runtime import AuditConfig, FederationConfig, LimitsConfig, ObservabilityConfig, RuntimeConfig
from fedmd.config.training import LocalConfig, ModelConfig, TrainingConfig


class RunConfig(Section):
    """One federation from burn-in to its last round. Same config, same numbers.

    mode=stream: clients send samples, the server learns online. mode=update (an extension): clients train, the server
    aggregates what they learned; `local`, `strategy` and `screening` are for that mode.
    """

    mode: Mode = "stream"
    seed: CountOrZero
    tracking: tuple[Literal["csv", "tensorboard", "mlflow", "wandb"], ...] = ()
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    stream: StreamConfig
    attack: AttackConfig
    defense: DefenseConfig
    threshold: ThresholdConfig
    history: HistoryConfig
    federation: FederationConfig
    runtime: RuntimeConfig
    limits: LimitsConfig = LimitsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()
    local: LocalConfig = LocalConfig()
    strategy: StrategyConfig = Field(default_factory=lambda: StrategyConfig.model_validate({"name": "fedavg"}))
    screening: ScreeningConfig = ScreeningConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    audit: AuditConfig = AuditConfig()

    @model_validator(mode="after")
    def _belongs_to_the_mode(self) -> Self:
        """Every plug-in, and every setting of one, is for the run's mode; and the plug-ins agree with the rest."""
        plugins = [section for _, section in self if isinstance(section, PluginSection)]
        for section in plugins:
            section.check_mode(self.mode)
        if self.mode == "update" and self.stream.source == "published_replay":
            raise ValueError("stream.source: published_replay is for mode=stream, not for mode=update")
        if self.mode == "update" and self.quarantine.name == "evidence" and not self._screens_updates():
            raise ValueError(
                "quarantine.name: evidence comes from the screening in mode=update; set defense=discrepancy_screening"
            )
        for section in plugins:
            if not isinstance(section.params, Unresolved):
                section.plugin.check_run(section.params, self)
        return self

    def _screens_updates(self) -> bool:
        """Whether the defence does; of one that was not looked up nobody knows better."""
        return isinstance(self.defense.params, Unresolved) or getattr(self.defense.plugin, "screens_updates", False)

    @classmethod
    def parse(cls, source: str | dict[str, Any]) -> Self:
        """From JSON text or a mapping. Raises `ConfigError` naming the first wrong key."""
        try:
            mapping = json.loads(source) if isinstance(source, str) else source
            return cls.model_validate(mapping)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the configuration is not valid JSON: {error}.") from error
        except ValidationError as error:
            raise ConfigError(sentence(error, cls)) from error

    @classmethod
    def parse_unresolved(cls, source: str) -> Self:
        """As `parse`, but no plug-in is looked up, nor its settings judged: for a process that needs none of them.

        PyTorch is not imported. `make` of a plug-in's section raises ConfigError.
        """
        with registry.resolving("nothing"):
            return cls.parse(source)

    def to_json(self) -> str:
        """The text that `parse` reads back to an equal configuration."""
        return self.model_dump_json()

    def digest(self) -> str:
        """The SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def decisive(self) -> dict[str, Any]:
        """The settings that can change a result: two configurations that agree in them have the same numbers."""
        no_effect = set(RuntimeConfig.NO_EFFECT_ON_RESULTS)
        return self.model_dump(exclude={"runtime": no_effect, "audit": True, "observability": True, "tracking": True})
