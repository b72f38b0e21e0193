"""Files in configs/cluster, tested without a cluster."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from woundray.cli.command import parse
from woundray.config import Config
from woundray.tune import Tune

FOLDER = Path(__file__).parents[2] / "configs" / "cluster"


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return values


def test_each_file_has_a_test_and_token_authentication() -> None:
    clusters = {"kuberay-rayjob.yaml", "slurm.sh", "on-premise.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == clusters | {"prometheus.yml"}
    for name in clusters:
        assert re.search(r"mode: token|RAY_AUTH_MODE=token", (FOLDER / name).read_text()), name
        assert re.search(r"RAY_USAGE_STATS_ENABLED(=0|\n +value: .0)", (FOLDER / name).read_text()), name


def test_prometheus_asks_the_dashboard_for_the_nodes_with_the_token() -> None:
    [job] = read("prometheus.yml")["scrape_configs"]
    [nodes] = job["http_sd_configs"]
    assert nodes["url"] == f"http://127.0.0.1:{Config().study.dashboard_port}/api/prometheus/sd"
    # without its type Prometheus 2.42 sends the bare token, and Ray answers 403
    assert nodes["authorization"] == {"type": "Bearer", "credentials_file": "auth_token"}


def test_kuberay_gives_every_pod_the_same_image_environment_and_folder() -> None:
    job = read("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    pinned = (FOLDER.parents[1] / "constraints.txt").read_text()
    assert f"ray=={cluster['rayVersion']}" in pinned  # other versions of Ray do not join

    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        [container] = pod["containers"]
        [first] = pods[0]["containers"]
        for same in ("image", "env", "volumeMounts"):
            assert container[same] == first[same]
        assert pod["volumes"] == pods[0]["volumes"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]  # as KubeRay asks for
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_kuberays_entrypoint_is_a_command_line_of_tune() -> None:
    job = read("kuberay-rayjob.yaml")["spec"]
    command, flags = job["entrypoint"].split("woundray.tune")
    assert command == "python -m "
    settings = parse(Tune, flags.split()).settings
    assert settings.study.name == "phase-i"
    [container] = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    [mount] = container["volumeMounts"]
    assert settings.study.output.is_relative_to(mount["mountPath"])
    assert settings.data.root is not None and settings.data.root.is_relative_to(mount["mountPath"])


def test_the_slurm_script_is_bash_and_takes_tunes_arguments() -> None:
    script = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "--signal=B:INT@" in text  # Ctrl-C before the time is up
    assert "export RAY_AUTH_TOKEN" in text
    assert not re.search(r"ray start.*token", text)  # others see command lines
    example = re.search(r"sbatch \S+ (.*?)\n#\n", text, re.DOTALL)
    assert example is not None
    parse(Tune, re.sub(r"\\\n#", " ", example[1]).split())


@pytest.mark.filterwarnings("ignore")
def test_ray_takes_the_on_premise_file() -> None:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read("on-premise.yaml"))
    validate_config(config)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("ray start" in command and "RAY_AUTH_MODE=token" in command for command in config[commands])
