"""Settings and versions of the runs of a page, as tables."""

from collections.abc import Sequence

from fedmd.report.html.content import Block, Section, Table
from fedmd.report.html.evidence import Run, flat, shown


def settings_section(runs: Sequence[Run]) -> Section:
    """Settings that all runs share, how the others vary, and the versions they ran with."""
    configs = [flat(run.summary["config"]) for run in runs]
    values = {
        key: list(dict.fromkeys(shown(config[key]) if key in config else "–" for config in configs))
        for key in dict.fromkeys(key for config in configs for key in config)
    }
    blocks: list[Block] = []
    if varied := [{"setting": key, "values": ", ".join(texts)} for key, texts in values.items() if len(texts) > 1]:
        blocks.append(Table.of(varied, "Settings that differ between the runs"))
    caption = "Settings of every run here" if varied else "Settings, as Hydra overrides name them"
    same = [{"setting": key, "value": texts[0]} for key, texts in values.items() if len(texts) == 1]
    blocks.append(Table.of(same, caption, folded=f"All {len(same)} settings"))
    versions = [run.summary["versions"] for run in runs]
    rows = [
        {"package": name, "version": ", ".join(dict.fromkeys(str(known.get(name, "–")) for known in versions))}
        for name in dict.fromkeys(name for known in versions for name in known)
    ]
    return Section("settings", "Settings and versions", [Table.of(rows, "Versions of what decides a result"), *blocks])
