#!/usr/bin/env python3
"""Put the signed bundle into SuperLink's database, where `flwr run @fedmd/guarded` finds it; superlink.sh does this.

Flower hands signatures to nodes for apps of its Hub only, never for a folder given to `flwr run`; so the bundle is
stored as a Hub app is, and superlink.sh points the Hub's address at nothing.
"""

import json
import sys
from pathlib import Path

from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.common.constant import NOOP_FLWR_AID
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories

HERE = Path(__file__).resolve().parent
BUNDLE, DATABASE = HERE / "bundle", HERE / "superlink/superlink.db"


def main() -> None:
    if not (BUNDLE / "signature.json").exists():
        sys.exit(f"{BUNDLE} has no signed app: python sign_app.py makes one, where authority/ is.")
    content = (BUNDLE / "app.fab").read_bytes()
    signatures = json.loads((BUNDLE / "signature.json").read_text())
    verifications = {name: json.dumps(signature) for name, signature in signatures.items()} | {"valid_license": "Valid"}
    app, _ = get_metadata_from_config(get_fab_config(content))
    _, states = get_objectstore_linkstate_factories(str(DATABASE), get_federation_manager())
    states.state().store_app(
        fab=Fab("", content, verifications),
        federation_id=NOOP_FEDERATION_ID,
        app_id=f"@{app}",
        app_type=TaskType.SERVER_APP,
        added_by=NOOP_FLWR_AID,
        is_hub_app=True,
    )


if __name__ == "__main__":
    main()
