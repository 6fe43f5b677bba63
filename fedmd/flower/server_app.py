"""The ServerApp of `flwr run`: reads Hydra overrides from the run configuration and serves one federation."""

import shlex

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmd.compose import compose
from fedmd.flower.federation import print_round, serve
from fedmd.flower.observing import observing

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """`overrides` holds Hydra overrides separated by spaces; `hydra.run.dir=` among them sets the run folder."""
    composed = compose(shlex.split(str(context.run_config.get("overrides", ""))))
    composed.write_hydra_files()
    with observing(composed.config, print_round) as observe:
        serve(grid, composed.config, composed.folder, observe)
    print(f"run folder: {composed.folder}", flush=True)
