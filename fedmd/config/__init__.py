"""What a run can be told, as frozen records that validate themselves; Hydra composes, these judge.

`RunConfig.parse` takes Hydra's composed mapping or the JSON text that travels to a client, and either returns a
complete, valid configuration or raises `ConfigError` with one sentence that names the key and what it allows.
"""

from fedmd.config.attack import AttackConfig
from fedmd.config.base import (
    STREAM_ONLY,
    UPDATE_ONLY,
    ConfigError,
    Count,
    CountOrZero,
    Mode,
    NonNegative,
    OnlyIn,
    Positive,
    Section,
    Share,
)
from fedmd.config.data import DataConfig, PartitionConfig, ShiftConfig, SplitConfig, StreamConfig
from fedmd.config.defense import (
    DefenseConfig,
    HistoryConfig,
    QuarantineConfig,
    ScreeningConfig,
    StrategyConfig,
    ThresholdConfig,
)
from fedmd.config.node import NodeConfig
from fedmd.config.plugin import PluginSection
from fedmd.config.run import RunConfig
from fedmd.config.runtime import AuditConfig, FederationConfig, LimitsConfig, ObservabilityConfig, RuntimeConfig
from fedmd.config.training import BurnInConfig, LocalConfig, ModelConfig, OnlineConfig, TrainingConfig

__all__ = [
    "STREAM_ONLY",
    "UPDATE_ONLY",
    "AttackConfig",
    "AuditConfig",
    "BurnInConfig",
    "ConfigError",
    "Count",
    "CountOrZero",
    "DataConfig",
    "DefenseConfig",
    "FederationConfig",
    "HistoryConfig",
    "LimitsConfig",
    "LocalConfig",
    "Mode",
    "ModelConfig",
    "NodeConfig",
    "NonNegative",
    "ObservabilityConfig",
    "OnlineConfig",
    "OnlyIn",
    "PartitionConfig",
    "PluginSection",
    "Positive",
    "QuarantineConfig",
    "RunConfig",
    "RuntimeConfig",
    "ScreeningConfig",
    "Section",
    "Share",
    "ShiftConfig",
    "SplitConfig",
    "StrategyConfig",
    "StreamConfig",
    "ThresholdConfig",
    "TrainingConfig",
]
