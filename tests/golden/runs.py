"""The golden runs by name: Hydra overrides. Between them they take every path on which a number is made."""

# 5 clients (2 malicious) with 8x8 digits; a burn-in of seconds; at most nine rounds.
_SMALL = [
    "data=digits", "model=cnn", "model.width=4", "data.splits.burn_in=150", "data.splits.trusted=40",
    "data.splits.attacker=40", "data.splits.test=200", "training.burn_in.epochs=3", "training.burn_in.batch_size=25",
    "federation.clients=5", "attack.fraction=0.4", "runtime.device=cpu", "runtime.threads=1", "runtime.progress=false",
    "stream.batch_size=6", "stream.clean_rounds=2", "stream.accumulative_rounds=3", "stream.trigger_rounds=1",
    "stream.recovery_rounds=1", "training.online.lr=0.05",
]  # fmt: skip
_SNAPSHOT = [*_SMALL, "history=snapshot"]  # what was the default when these were first recorded
_DSC = ["defense=dsc", "defense.beyond_mending=keep"]
_PER_SAMPLE = [*_DSC, "defense.stopping=per_sample"]
_PLAIN = [*_SNAPSHOT, "threshold.fpr=0.05"]
_UPDATE = [*_SMALL, "mode=update", "local.batch_size=10", "local.samples=30", "local.lr=0.1"]
_RESNET = ["model=resnet_small", "model.width=4"]
_DIRICHLET = ["data.partition.name=dirichlet", "+data.partition.alpha=0.5"]

RUNS: dict[str, list[str]] = {
    "stream-undefended": [*_PLAIN, "defense=none"],
    "stream-dsc-snapshot": [*_SNAPSHOT, *_PER_SAMPLE, "threshold.fpr=0.3",
        "history.epoch=2"],
    "stream-dsc-ema-dirichlet": [
        *_SMALL, *_RESNET, *_DIRICHLET, *_DSC, "defense.stopping=per_client", "history=ema",
        "history.decay=0.9", "training.online.batchnorm=trusted", "threshold.fpr=0.2",
    ],
    "stream-dsc-published": [
        *_SNAPSHOT, *_DSC, "defense.stopping=batch_mean", "threshold=published",
        "threshold.start=0.001", "threshold.slope=0.0005",
        "attack.trigger=online", "attack.stop_error_rise=0.01",
    ],
    "stream-drop-backdoor-lag": [
        *_SMALL, "defense=drop", "threshold.fpr=0.05", "defense.detector=mahalanobis", "history=lag", "history.lag=2",
        "attack=backdoor", "attack.target=3", "attack.fraction=0.4",
    ],
    "stream-at-label-flip": [*_PLAIN, *_RESNET, "defense=at", "attack=label_flip", "attack.fraction=0.4"],
    "stream-trim-noise": [
        *_PLAIN, "defense=trim", "attack=noise", "attack.fraction=0.4", "stream.shift.name=rotation",
    ],
    "stream-clip-trigger": [*_PLAIN, "defense=clip", "attack=trigger_only", "attack.fraction=0.4"],
    "stream-frozen": [*_PLAIN, "defense=frozen", "attack=none"],
    "stream-quarantine": [
        *_SNAPSHOT, *_PER_SAMPLE, "quarantine=evidence", "quarantine.false_alarms=818.73",
        "quarantine.rounds=2", "federation.clients_per_round=4", "threshold.fpr=0.2", "federation.nodes=3",
    ],
    "stream-two-batches-a-reply": [*_SNAPSHOT, "defense=drop", "threshold=fixed", "threshold.value=2",
        "defense.detector=historical_loss",
        "federation.batches_per_reply=2", "federation.nodes=2", "attack=label_flip", "attack.fraction=0.4"],
    "update-fedavg": [*_UPDATE, "defense=none", "strategy=fedavg", "attack.scale=100", "attack.norm_bound=3"],
    "update-screened-fedadam-alie": [
        *_UPDATE, *_RESNET, *_DIRICHLET, "defense=md_screen", "strategy=fedadam", "attack=alie",
        "attack.knowledge=all", "attack.scale=1.5", "attack.fraction=0.4",
    ],
    "update-screened-krum-replacement": [
        *_UPDATE, "defense=md_screen", "strategy=krum", "attack=replacement", "attack.fraction=0.4", "attack.target=3",
        "history=snapshot", "history.epoch=1", "screening.loss=ignored",
    ],
    "update-correct-quarantine": [
        *_UPDATE, "defense=md_screen", "screening.action=correct", "screening.k=1", "history=ema", "history.decay=0.9",
        "attack=sign_flip", "attack.scale=3", "attack.fraction=0.4", "quarantine=evidence",
        "quarantine.false_alarms=818.73", "federation.nodes=2",
    ],
    "update-weight-fedprox-minmax": [
        *_UPDATE, "defense=md_screen", "screening.action=weight", "screening.k=1", "history=lag", "history.lag=1",
        "strategy=fedprox", "attack=min_max", "attack.fraction=0.4", "federation.clients_per_round=4",
    ],
    "update-fltrust-free-rider": [
        *_UPDATE, "defense=none", "strategy=fltrust", "attack=free_rider", "attack.fraction=0.4",
    ],
    "update-centered-clipping-ipm": [
        *_UPDATE, *_RESNET, "defense=none", "strategy=centered_clipping", "attack=ipm", "attack.fraction=0.4",
    ],
}  # fmt: skip

# Killed after this many rounds, then gone on with: must end as if nothing had happened.
RESUMED: dict[str, tuple[list[str], int]] = {
    "stream-resumed": (
        [*_SMALL, *_PER_SAMPLE, "history=lag", "history.lag=2", "threshold.fpr=0.3"], 4,
    ),
    "update-resumed-fedavgm": (
        [*_UPDATE, "defense=md_screen", "strategy=fedavgm", "attack.scale=100", "attack.norm_bound=3"], 4,
    ),
}  # fmt: skip
