"""What a run can be told, as frozen records that validate themselves; Hydra composes, this file judges.

`RunConfig.parse` takes Hydra's composed mapping or the JSON text that travels to a client, and either returns a
complete, valid configuration or raises `ConfigError` with one sentence that names the key and what it allows.
"""

from fedmd.config.attack import AttackConfig
from fedmd.config.data import DataConfig, PartitionConfig, ShiftConfig, SplitConfig, StreamConfig
from fedmd.config.defense import DefenseConfig, HistoryConfig, ThresholdConfig
from fedmd.config.federation import FederationConfig, RuntimeConfig
from fedmd.config.limits import LimitsConfig
from fedmd.config.node import NodeConfig
from fedmd.config.observability import ObservabilityConfig
from fedmd.config.quarantine import AuditConfig, QuarantineConfig
from fedmd.config.run import RunConfig
from fedmd.config.section import ConfigError, Section
from fedmd.config.training import BurnInConfig, ModelConfig, OnlineConfig, TrainingConfig
from fedmd.config.update import LocalConfig, ScreeningConfig, StrategyConfig

__all__ = [
    "AttackConfig",
    "AuditConfig",
    "BurnInConfig",
    "ConfigError",
    "DataConfig",
    "DefenseConfig",
    "FederationConfig",
    "HistoryConfig",
    "LimitsConfig",
    "LocalConfig",
    "ModelConfig",
    "NodeConfig",
    "ObservabilityConfig",
    "OnlineConfig",
    "PartitionConfig",
    "QuarantineConfig",
    "RunConfig",
    "RuntimeConfig",
    "ScreeningConfig",
    "Section",
    "ShiftConfig",
    "SplitConfig",
    "StrategyConfig",
    "StreamConfig",
    "ThresholdConfig",
    "TrainingConfig",
]
