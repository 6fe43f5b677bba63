"""Flower's own strategies."""

from typing import Any

from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)
from pydantic import Field

from fedmd.config import NonNegative, Positive, RunConfig, Section, Share
from fedmd.flower.strategies.base import EVERYBODY, AssumesMalicious, Minority, StrategyPlugin
from fedmd.registry import register_strategy
from fedmd.rounds.model import ServerModel


@register_strategy("fedavg")
class FedAvgPlugin(StrategyPlugin):
    """Mean of the models, weighted by number of samples (McMahan et al., 2017)."""

    label = "FedAvg"
    remembers = ()

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedAvg."""
        return FedAvg(**EVERYBODY)


@register_strategy("fedavgm")
class FedAvgMPlugin(StrategyPlugin):
    """FedAvg with momentum on the server (Hsu et al., 2019)."""

    label = "FedAvgM"
    remembers = ("momentum_vector",)  # its `current_arrays` is the global model in every round that moves it

    class Params(Section):
        """The server's optimizer."""

        lr: Positive = 1.0
        momentum: Share = 0.9

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedAvgM."""
        return FedAvgM(**EVERYBODY, server_learning_rate=self.params.lr, server_momentum=self.params.momentum)


@register_strategy("fedadam")
class FedAdamPlugin(StrategyPlugin):
    """Adam on the server (Reddi et al., 2021)."""

    label = "FedAdam"
    remembers = ("m_t", "v_t")

    class Params(Section):
        """The server's optimizer."""

        lr: Positive = Field(0.01, description="its step")
        momentum: Share = Field(0.9, description="its beta_1")

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedAdam."""
        return FedAdam(**EVERYBODY, eta=self.params.lr, beta_1=self.params.momentum)


@register_strategy("fedprox")
class FedProxPlugin(StrategyPlugin):
    """FedAvg of clients whose training is pulled back to the server model by mu / 2 * |.|^2 (Li et al., 2020)."""

    label = "FedProx"
    remembers = ()

    class Params(Section):
        """The pull."""

        proximal_mu: NonNegative = 0.1

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedProx."""
        return FedProx(**EVERYBODY, proximal_mu=self.params.proximal_mu)


@register_strategy("fedmedian")
class FedMedianPlugin(StrategyPlugin):
    """Median of each coordinate (Yin et al., 2018)."""

    label = "FedMedian"
    remembers = ()

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedMedian."""
        return FedMedian(**EVERYBODY)


@register_strategy("fedtrimmedavg")
class FedTrimmedAvgPlugin(StrategyPlugin):
    """Mean of each coordinate without the malicious_share at either end (Yin et al., 2018)."""

    label = "FedTrimmedAvg"
    remembers = ()

    class Params(Section):
        """What is cut."""

        malicious_share: Minority = Field(0.2, description="of the clients, cut at either end")

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's FedTrimmedAvg."""
        return FedTrimmedAvg(**EVERYBODY, beta=self.params.malicious_share)


@register_strategy("krum")
class KrumPlugin(StrategyPlugin):
    """The model nearest to its neighbours (Blanchard et al., 2017)."""

    label = "Krum"
    remembers = ()

    class Params(AssumesMalicious):
        """How many to expect."""

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's Krum."""
        return Krum(**EVERYBODY, num_malicious_nodes=self.params.malicious(run))


@register_strategy("multikrum")
class MultiKrumPlugin(StrategyPlugin):
    """Mean of the n - f models nearest to their neighbours (Blanchard et al., 2017)."""

    label = "MultiKrum"
    remembers = ()

    class Params(AssumesMalicious):
        """How many to expect."""

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's MultiKrum."""
        malicious = self.params.malicious(run)
        selected = run.federation.sampled_clients - malicious
        return MultiKrum(**EVERYBODY, num_malicious_nodes=malicious, num_nodes_to_select=selected)


@register_strategy("bulyan")
class BulyanPlugin(StrategyPlugin):
    """Krum selects, a trimmed mean of each coordinate follows (El Mhamdi et al., 2018); needs n >= 4 f + 3."""

    label = "Bulyan"
    remembers = ()

    class Params(AssumesMalicious):
        """A smaller share, as it needs many clients."""

        malicious_share: Minority = Field(0.1, description="of a round, as the defender assumes it")

    params: Params

    @classmethod
    def check_run(cls, params: Params, run: Any) -> None:
        """There must be 4 f + 3 clients a round."""
        clients, malicious = run.federation.sampled_clients, params.malicious(run)
        if run.mode == "update" and clients < 4 * malicious + 3:
            raise ValueError(
                f"strategy.malicious_share: bulyan needs 4 f + 3 clients a round, but "
                f"{params.malicious_share:g} of {clients} makes f = {malicious}"
            )

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Flower's Bulyan."""
        return Bulyan(**EVERYBODY, num_malicious_nodes=self.params.malicious(run))
