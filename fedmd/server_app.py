"""The ServerApp of `flwr run`: reads Hydra overrides from the run configuration and serves one federation."""

import shlex
import signal

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmd.rounds.checkpoint import tidy
from fedmd.rounds.folder import has_finished, note_config, noted_config, sole_server
from fedmd.runs.compose import compose, make_folder, resumed_folder
from fedmd.runs.federation import print_round, serve
from fedmd.runs.observers import observing
from fedmd.runs.stopping import Stopped, stopping_on_sigterm
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """`overrides` holds Hydra overrides separated by spaces; `hydra.run.dir=` among them sets the run folder.

    `resume=RUN_DIR`, alone, goes on with the run in that folder.
    """
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    resume = resumed_folder(overrides)
    if resume is not None:
        if has_finished(resume):
            tidy(resume)
            print(f"run folder: {resume} holds a finished run; there is nothing to resume", flush=True)
            return
        config, folder = noted_config(resume), resume
    else:
        refuse_hydra(typed_keys(overrides), "run")
        composed = compose(overrides)
        refuse_unused([composed])
        config, folder = composed.config, composed.folder
        make_folder(folder)
        with sole_server(folder):  # a run that is going on there keeps its own configuration
            note_config(folder, config)
            composed.write_hydra_files()
    flowers = signal.getsignal(signal.SIGTERM)  # tells SuperLink, and exits

    def tell_flower() -> None:
        if callable(flowers):
            flowers(signal.SIGTERM, None)

    try:
        with stopping_on_sigterm(tell_flower), observing(config, print_round) as observe:
            head = serve(grid, config, folder, observe, resume=resume is not None)["audit_head"]
    except Stopped as stopped:  # SuperLink calls the run failed, with these words
        raise RuntimeError(f"asked to end; overrides='resume={folder}' goes on with the run") from stopped
    print(f"audit head: {head['seq']}:{head['hash']}", flush=True)
    print(f"run folder: {folder}", flush=True)
