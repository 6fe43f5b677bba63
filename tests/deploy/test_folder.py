"""The folder of `fedmd deploy init`: every file parses with its tool, the scripts make working secrets."""

import configparser
import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from fedmd.config import ConfigError, NodeConfig
from fedmd.deploy.folder import Plan, init_folder
from fedmd.report.monitoring.prometheus import LiveMetrics
from fedmd.types import Rejection, RoundReport, Verdicts

CHECKOUT = Path(__file__).resolve().parents[2]
MEGABYTE = 10**6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fresh folder for two nodes."""
    init_folder(tmp_path / "federation", Plan(nodes=2))
    return tmp_path / "federation"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with certificates and keys, which its own scripts have made."""
    folder = tmp_path_factory.mktemp("made") / "federation"
    init_folder(folder, Plan(nodes=2))
    for script in ("certificates.py", "sign_app.py", "node_keys.py"):
        subprocess.run([sys.executable, folder / script], check=True, capture_output=True)
    return folder


@pytest.fixture
def secrets(made: Path, folder: Path) -> Path:
    """A fresh folder with copies of those, to be damaged."""

    def copy(source: str, target: str) -> None:
        if not Path(target).exists():
            shutil.copy2(source, target)

    return shutil.copytree(made, folder, copy_function=copy, dirs_exist_ok=True)


def test_every_file_is_what_it_should_be(folder: Path) -> None:
    toml = {path.relative_to(folder).as_posix(): tomllib.loads(path.read_text()) for path in folder.rglob("*.toml")}
    nodes = {"nodes/node-0.toml", "nodes/node-1.toml"}
    assert set(toml) == {"app/pyproject.toml", "flower/config.toml", "run.toml", *nodes}
    assert toml["flower/config.toml"]["superlink"]["federation"]["root-certificates"] == f"{folder}/certificates/ca.pem"
    assert f"register_file={folder}/register.json" in toml["run.toml"]["overrides"]
    for client in range(2):
        assert NodeConfig.parse(toml[f"nodes/node-{client}.toml"]).client == client
    for script in folder.rglob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)
    kept = (folder / "systemd/fedmd-supernode@.service").read_text()
    assert "\nRestart=always\n" in kept  # also after exit code 0, as tests/integration/test_deployment.py has it
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {"proxy", "superlink", "node-0", "node-1"}
    mounted = {name: " ".join(service["volumes"]) for name, service in services.items()}
    assert not [name for name, mounts in mounted.items() if "authority" in mounts]
    assert [name for name, mounts in mounted.items() if "server.key" in mounts] == ["proxy"]
    assert [name for name, mounts in mounted.items() if "superlink.key" in mounts] == ["superlink"]
    assert "node-1" not in mounted["node-0"]
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]


def test_each_process_is_its_own_users_with_bounded_memory_and_no_authority(folder: Path) -> None:
    """By systemd and by Docker; Kubernetes has a test of its own."""
    units = {path.name: configparser.RawConfigParser(strict=False) for path in (folder / "systemd").glob("*.service")}
    for name, unit in units.items():
        unit.read(folder / "systemd" / name)
    services = {name: unit["Service"] for name, unit in units.items()}
    assert len(services) == 3 and len({service["User"] for service in services.values()}) == 3
    for service in services.values():
        assert service["User"].startswith("fedmd-") and service["MemoryMax"] and service["TasksMax"]
        assert f"-{folder}/authority" in service["InaccessiblePaths"].split()
        assert service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes"
    containers = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    assert len({container["user"] for container in containers}) == len(containers) == 4
    assert all(int(container["user"]) > 10000 and container["mem_limit"] for container in containers)


Manifest = dict[str, Any]


def manifests(folder: Path, file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((folder / "kubernetes" / file).read_text()))


def workloads(folder: Path) -> list[Manifest]:
    found = [*manifests(folder, "server.yaml"), *manifests(folder, "nodes.yaml")]
    return [each for each in found if each["kind"] in ("StatefulSet", "Deployment")]


@pytest.fixture
def applied(secrets: Path, tmp_path: Path) -> dict[tuple[str, str], dict[str, Path]]:
    """The files in each Secret and ConfigMap that apply.sh makes with a kubectl of ours, by kind and name."""
    log = tmp_path / "kubectl.log"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\ncase " $* " in *" create "*) echo "$@" >> {log};; *) cat > /dev/null;; esac\n')
    kubectl.chmod(0o755)
    for part in ("server", "nodes"):
        environ = {**os.environ, "KUBECTL": str(kubectl)}
        subprocess.run([secrets / "kubernetes/apply.sh", part], check=True, env=environ)
    made = {}
    for line in log.read_text().splitlines():
        if said := re.fullmatch(r"--namespace fedmd create (configmap|secret generic) (\S+) (.*) --dry-run.*", line):
            files = [secrets / name for name in re.findall(r"--from-file=(\S+)", said[3])]
            made[said[1].removesuffix(" generic"), said[2]] = {file.name: file for file in files}
    return made


def test_kubernetes_mounts_what_there_is_and_keys_where_they_belong(
    secrets: Path, applied: dict[tuple[str, str], dict[str, Path]]
) -> None:
    kinds = {"configMap": ("configmap", "name"), "secret": ("secret", "secretName")}
    assert all(file.is_file() for files in applied.values() for file in files.values())
    assert not [file for files in applied.values() for file in files.values() if "authority" in file.parts]
    held: dict[str, set[str]] = {}  # the files that each container sees, as in the folder
    for workload in workloads(secrets):
        pod = workload["spec"]["template"]["spec"]
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            name = f"{workload['metadata']['name']}/{container['name']}"
            for mount in container["volumeMounts"]:
                if mount["name"] in claims or "emptyDir" in (volume := volumes[mount["name"]]):
                    continue
                if "persistentVolumeClaim" in volume:
                    continue
                (source,) = set(volume) & set(kinds)
                kind, key = kinds[source]
                files = applied[kind, volume[source][key]]
                inside = Path(mount["mountPath"])
                shown = (
                    {inside: files[mount["subPath"]]}
                    if "subPath" in mount
                    else {inside / name: file for name, file in files.items()}
                )
                assert mount["readOnly"] and all(place == file for place, file in shown.items()), name
                held.setdefault(name, set()).update(str(file.relative_to(secrets)) for file in shown.values())
    keys = {name: {file for file in files if re.fullmatch(r".*\.key|keys/[^.]*", file)} for name, files in held.items()}
    assert keys == {
        "server/proxy": {"certificates/server.key"},
        "server/superlink": {"certificates/superlink.key"},
        "node-0/supernode": {"keys/node-0"},
        "node-1/supernode": {"keys/node-1"},
    }
    needed = {"superlink.sh", "register.sh", "offer_app.py", "run.toml", "register.json", "flower/config.toml"}
    assert held["server/superlink"] >= {*needed, "bundle/app.fab", "bundle/signature.json", "keys/node-1.pub"}


def test_kubernetes_runs_what_the_scripts_run_and_opens_one_port(secrets: Path) -> None:
    server, nodes = manifests(secrets, "server.yaml"), manifests(secrets, "nodes.yaml")
    kinds = {each["kind"]: each for each in server}
    assert set(kinds) == {"Namespace", "Service", "StatefulSet", "NetworkPolicy"}
    assert {each["metadata"].get("namespace", "fedmd") for each in [*server, *nodes]} == {"fedmd"}
    (port,) = kinds["Service"]["spec"]["ports"]
    pod = kinds["StatefulSet"]["spec"]["template"]
    proxy, superlink = pod["spec"]["containers"]
    assert proxy["ports"] == [{"name": port["targetPort"], "containerPort": 9092}] and port["port"] == 9092
    assert "ports" not in superlink and "9093" in str(superlink["livenessProbe"]) and "9092" not in str(superlink)
    assert kinds["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 9092}]}]
    assert kinds["NetworkPolicy"]["spec"]["egress"] == []
    policies = [each for each in [*server, *nodes] if each["kind"] == "NetworkPolicy"]
    for workload in workloads(secrets):
        spec, template = workload["spec"], workload["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        assert spec["selector"]["matchLabels"].items() <= labels and spec["replicas"] == 1
        matching = [each for each in policies if each["spec"]["podSelector"]["matchLabels"].items() <= labels]
        assert [set(each["spec"]["policyTypes"]) for each in matching] == [{"Ingress", "Egress"}]
        assert (
            not template["spec"]["automountServiceAccountToken"] and template["spec"]["securityContext"]["runAsNonRoot"]
        )
        for container in template["spec"]["containers"]:
            guarded = container["securityContext"]
            assert guarded["readOnlyRootFilesystem"] and guarded["capabilities"] == {"drop": ["ALL"]}
            assert guarded["allowPrivilegeEscalation"] is False and guarded["runAsUser"] > 10000
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            script = container["command"][1] if container["command"][0] == "bash" else None
            assert script is None or (secrets / script).is_file()
    assert kinds["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    claims = {each["metadata"]["name"] for each in nodes if each["kind"] == "PersistentVolumeClaim"}
    assert claims == {"state-node-0", "state-node-1"}
    reached = [
        env["value"]
        for each in workloads(secrets)[1:]
        for env in each["spec"]["template"]["spec"]["containers"][0]["env"]
    ]
    assert reached == [f"{kinds['Service']['metadata']['name']}:9092", "/tmp"] * 2


def test_the_run_configuration_composes(folder: Path) -> None:
    import shlex

    from fedmd.runs.compose import compose

    overrides = tomllib.loads((folder / "run.toml").read_text())["overrides"]
    config = compose(shlex.split(overrides)).config
    assert (config.federation.clients, config.attack.name, config.defense.name) == (2, "none", "dsc")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_units(folder: Path, tmp_path: Path) -> None:
    for unit in (folder / "systemd").glob("*.service"):
        name = tmp_path / unit.name.replace("@", "@node-0")
        shutil.copy(unit, name)
        checked = subprocess.run(["systemd-analyze", "verify", "--man=no", name], capture_output=True, text=True)
        mine = [line for line in checked.stderr.splitlines() if "fedmd-" in line]
        assert mine == [], checked.stderr


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "run.toml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        init_folder(folder, Plan(nodes=2))
    assert (folder / "run.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("plan", "key"),
    [
        ({"control_port": 0}, "--control-port"),
        ({"port": 9093}, "--port"),
        ({"port": 0}, "--port"),
        ({"nodes": 0}, "--nodes"),
        ({"host": "a b"}, "--host"),
        ({"host": "$(id)"}, "--host"),
    ],
)
def test_bad_plans_are_refused(plan: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Plan(**plan)  # type: ignore[arg-type]


def test_a_folder_that_shells_would_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without blanks"):
        init_folder(tmp_path / "my federation", Plan())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_accepts_the_certificates_for_the_right_host_only(secrets: Path) -> None:
    def verified(*host: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *host, "-CAfile"]
        files = [secrets / "certificates/ca.pem", secrets / "certificates/server.pem"]
        return subprocess.run([*command, *files], capture_output=True).returncode == 0

    assert verified("-verify_ip", "127.0.0.1")
    assert not verified("-verify_ip", "127.0.0.2")
    assert not verified("-verify_hostname", "example.org")


def test_a_handshake_trusts_this_authority_and_no_other(secrets: Path, tmp_path: Path) -> None:
    init_folder(tmp_path / "other", Plan(nodes=1))
    subprocess.run([sys.executable, tmp_path / "other/certificates.py"], check=True, capture_output=True)
    assert handshake(secrets, secrets / "certificates/ca.pem")
    assert not handshake(secrets, tmp_path / "other/certificates/ca.pem")


def handshake(server: Path, ca: Path) -> bool:
    """TLS between two memory buffers."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server / "certificates/server.pem", server / "certificates/server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = accepting.wrap_bio(to_server, to_client, server_side=True)
    here = ssl.create_default_context(cafile=str(ca)).wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(10):
        done = []
        for end in (here, there):
            try:
                end.do_handshake()
                done.append(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
        if len(done) == 2:
            return True
    return False


def test_secrets_are_readable_by_their_owner_alone_and_are_kept(secrets: Path) -> None:
    names = ["authority/ca.key", "certificates/server.key", "certificates/superlink.key", "keys/node-0"]
    private = [secrets / name for name in names]
    before = [path.read_bytes() for path in private]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 4
    for script in ("certificates.py", "node_keys.py"):
        subprocess.run([sys.executable, secrets / script], check=True, capture_output=True)
    assert [path.read_bytes() for path in private] == before


def test_the_server_needs_no_authority(secrets: Path) -> None:
    """What is there is kept without ca.key; a new certificate asks for it in one sentence."""
    shutil.rmtree(secrets / "authority")
    again = [sys.executable, str(secrets / "certificates.py")]
    subprocess.run(again, check=True, capture_output=True)
    (secrets / "certificates/server.pem").unlink()
    refused = subprocess.run(again, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1) and "ca.key is not here" in refused.stderr


def certificates(folder: Path, *step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "certificates.py", *step], capture_output=True, text=True)


def test_renewed_certificates_are_for_the_same_names(secrets: Path) -> None:
    before = [(secrets / f"certificates/{name}.pem").read_bytes() for name in ("ca", "server", "superlink")]
    assert certificates(secrets, "--renew", "fed.example.org", "127.0.0.1").returncode == 0
    named = (secrets / "certificates/server.pem").read_bytes()
    assert "fed.example.org, 127.0.0.1 in" in certificates(secrets, "--renew").stdout
    after = [(secrets / f"certificates/{name}.pem").read_bytes() for name in ("ca", "server", "superlink")]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False] and after[1] != named
    assert handshake(secrets, secrets / "certificates/ca.pem")


def test_a_new_authority_takes_over_while_both_are_trusted(secrets: Path, tmp_path: Path) -> None:
    ca, old = secrets / "certificates/ca.pem", tmp_path / "old.pem"
    shutil.copy(ca, old)
    assert certificates(secrets, "--new-authority").returncode == 0
    assert handshake(secrets, ca) and handshake(secrets, old)  # nodes with the new file, and those without
    early = certificates(secrets, "--retire")
    assert (
        early.returncode == 1
        and early.stderr == "server.pem is still signed by the old authority: --renew comes first.\n"
    )
    both = tmp_path / "both.pem"
    shutil.copy(ca, both)
    assert certificates(secrets, "--renew").returncode == 0
    assert handshake(secrets, both) and not handshake(secrets, old)
    assert certificates(secrets, "--retire").returncode == 0
    assert handshake(secrets, ca) and ca.read_text().count("BEGIN CERTIFICATE") == 1


def test_registering_says_so_when_nobody_answers(secrets: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    script = [secrets / "register.sh"]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 1 and "keys/node-0.pub was not registered" in done.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_the_register_has_the_fingerprints_that_ssh_keygen_prints(secrets: Path) -> None:
    register = json.loads((secrets / "register.json").read_text())
    for client in range(2):
        said = subprocess.run(
            ["ssh-keygen", "-lf", secrets / f"keys/node-{client}.pub"], capture_output=True, text=True, check=True
        )
        bits, fingerprint, name, kind = said.stdout.split()
        assert (bits, name, kind) == ("384", f"node-{client}", "(ECDSA)")
        assert register[fingerprint] == {"name": f"node-{client}", "clients": [client]}


def bundled(app: Path) -> dict[str, bytes]:
    """The files of the bundle that `flwr run` sends out."""
    bundle = build_fab_from_disk(app)
    assert len(bundle) < 10 * MEGABYTE
    with zipfile.ZipFile(BytesIO(bundle)) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_the_folders_bundle_holds_the_two_apps_and_nothing_else(secrets: Path) -> None:
    files = bundled(secrets / "app")
    assert set(files) == {"pyproject.toml", "guarded/__init__.py", "guarded/apps.py", ".info/CONTENT"}


def test_flowers_own_check_accepts_what_the_pinned_publisher_signed_and_nothing_else(secrets: Path) -> None:
    """The function that SuperNode calls; a compromised server chooses the bundle and every word about it."""
    pinned = yaml.safe_load((secrets / "publisher.yaml").read_text())
    (name,) = pinned
    bundle = (secrets / "bundle/app.fab").read_bytes()
    signature = json.loads((secrets / "bundle/signature.json").read_text())[name]
    init_folder(secrets / "other", Plan(nodes=1))
    subprocess.run([sys.executable, secrets / "other/sign_app.py"], check=True, capture_output=True)
    ((stranger, forged),) = json.loads((secrets / "other/bundle/signature.json").read_text()).items()

    def accepted(content: bytes, signatures: dict[str, object]) -> bool:
        said = {key: json.dumps(value) for key, value in signatures.items()} | {"valid_license": "Valid"}
        return _verify_fab(Fab("", content, said), pinned)

    assert accepted(bundle, {name: signature})
    assert not accepted(bundle + b" ", {name: signature})
    assert not accepted(bundle, {name: {**signature, "signed_at": signature["signed_at"] + 1}})
    assert not accepted(bundle, {name: forged})
    assert not accepted(bundle, {stranger: forged})
    assert not accepted(bundle, {})


def test_the_checkouts_bundle_holds_code_and_settings_only(tmp_path: Path) -> None:
    """Built from a copy with private files where people leave them."""
    app = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "fedmd", app / "fedmd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CHECKOUT / "conf", app / "conf")
    shutil.copy(CHECKOUT / "pyproject.toml", app)
    for private in ("server.key", "data/patients.json", "outputs/summary.json", ".env", "conf/notes.md", "keys/a.py"):
        (app / private).parent.mkdir(parents=True, exist_ok=True)
        (app / private).write_text("PRIVATE")
    files = bundled(app)
    assert {name for name in files if not name.startswith(("fedmd/", "conf/"))} == {"pyproject.toml", ".info/CONTENT"}
    assert {Path(name).suffix for name in files if name.startswith("conf/")} == {".yaml"}
    assert not [name for name, content in files.items() if b"PRIVATE" in content]


def test_the_dashboard_asks_for_what_is_exported(folder: Path) -> None:
    """Every metric and every label that a panel names is among what a server under Prometheus shows."""
    exported = urlopen_metrics()
    panels = json.loads((folder / "grafana.json").read_text())["panels"]
    asked = [(target["expr"], target["legendFormat"]) for panel in panels for target in panel["targets"]]
    assert len(asked) > 8
    for expression, legend in asked:
        names = re.findall(r"fedmd_\w+", expression)
        assert names and not set(names) - set(exported), expression
        labels = set(re.findall(r"\{\{(\w+)\}\}", legend)) | set(re.findall(r"by \((\w+)\)", expression))
        assert labels <= exported[names[0]], expression
    shown = {name.removesuffix("_created") for name in exported if not name.endswith(("_bucket", "_created"))}
    named = {name for expression, _ in asked for name in re.findall(r"fedmd_\w+", expression)}
    assert shown == named  # and nothing is left out


def urlopen_metrics() -> dict[str, set[str]]:
    """The metrics of a server after a round, by name, with their labels."""
    verdicts = Verdicts(np.ones(3), np.ones(3), np.zeros(3, np.int64), np.zeros(3, np.int64), 0.4)
    clients = np.zeros(3, np.int64)
    seen = RoundReport(
        round=0, phase="clean", accuracy=0.5, loss=0.1, verdicts=verdicts, clients=clients, index=np.arange(3),
        labels=clients, rejections=(Rejection(1, "late"),), bytes_received=10, wall_s={"step": 0.1},
        trusted_accuracy=0.5, audit_head=(3, "ab"),
    )  # fmt: skip
    with LiveMetrics("127.0.0.1", 0) as live:
        live.record(seen)
        host, port = live.address
        text = urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10).read().decode()
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if named := re.match(r"(fedmd_\w+)(?:\{(.*)\})? ", line):
            found.setdefault(named[1], set()).update(re.findall(r"(\w+)=", named[2] or ""))
    return found


def test_no_secret_gets_into_the_image(secrets: Path) -> None:
    """The build sees the wheel, and of the folder nothing else."""
    rules = [line for line in (secrets / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules == ["*", "!fedmd-*.whl"]
    steps = [line.split()[0] for line in (secrets / "Dockerfile").read_text().splitlines() if re.match("[A-Z]+ ", line)]
    assert steps[0] == "FROM" and "USER" in steps and steps.count("COPY") == 1
